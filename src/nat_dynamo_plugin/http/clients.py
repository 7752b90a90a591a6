"""A pair of HTTP clients, sync and async, on one set of layers: what every framework's client is built on."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nat_dynamo_plugin.http.banned import Banned
from nat_dynamo_plugin.http.call import origin_of
from nat_dynamo_plugin.http.engines import Connection, Engines
from nat_dynamo_plugin.http.flow import Send
from nat_dynamo_plugin.http.shell import KeyOf, Shell
from nat_dynamo_plugin.http.words import let_openai_tell
from nat_dynamo_plugin.question.once import warn_once

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HttpClients:
    """The clients of one LLM, and what a framework's client needs to know besides.

    Attributes:
        sync: an `httpx.Client`, or httpx2's where OpenAI's library is built on that.
        asynchronous: its async twin.
        timeout: the timeouts, as an object of the same library.
        base_url: OpenAI-compatible URL of the server, or `None` for the OpenAI library's own default.
        model_name: the model's name there.
        api_key: a placeholder, which the OpenAI library wants; the key is put in below, and no framework has it.
    """

    sync: Any
    asynchronous: Any
    timeout: Any
    base_url: str | None
    model_name: str
    api_key: str | None

    def openai(self) -> OpenAI:
        """The OpenAI library's client on our sync HTTP client, for frameworks that take one."""
        from openai import OpenAI

        return OpenAI(**self._openai_arguments(), http_client=self.sync)

    def async_openai(self) -> AsyncOpenAI:
        """The OpenAI library's client on our async HTTP client, for frameworks that take one."""
        from openai import AsyncOpenAI

        return AsyncOpenAI(**self._openai_arguments(), http_client=self.asynchronous)

    def _openai_arguments(self) -> dict[str, Any]:
        return {"api_key": self.api_key, "base_url": self.base_url, "timeout": self.timeout, "max_retries": 0}


def http_library() -> type[Shell]:
    """The shell for the HTTP library that the installed OpenAI library is built on: httpx2 from its version 3 on."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        major = int(version("openai").partition(".")[0])
    except (PackageNotFoundError, ValueError):
        major = 2
    if major >= 3:
        from nat_dynamo_plugin.http.httpx2_shell import Httpx2Shell

        return Httpx2Shell
    from nat_dynamo_plugin.http.httpx_shell import HttpxShell

    return HttpxShell


@asynccontextmanager
async def client_pair(
    send: Send,
    connection: Connection,
    base_url: str | None,
    headers: Mapping[str, str] | None = None,
    key: KeyOf | None = None,
    banned: Banned | None = None,
) -> AsyncIterator[tuple[Any, Any, Any]]:
    """A sync and an async client whose calls go through `send`, and their timeouts; closed at the end of the block.

    Args:
        send: the layers; see `flow.chained`.
        connection: how to connect.
        base_url: where to, for the choice of a proxy.
        headers: sent with every request.
        key: puts a key into requests that do not go through `send`.
        banned: headers that leave with no request.

    Raises:
        ValueError: for HTTP/2 without the package h2.
    """
    if connection.http2 and find_spec("h2") is None:
        raise ValueError(
            "http2=True: the package h2, which speaks HTTP/2, is not installed; install httpx[http2] or leave http2 out"
        )
    let_openai_tell()
    if not connection.verify_ssl and not (base_url or "").startswith("http:"):
        where = origin_of(base_url) if base_url else "the server"
        warn_once(
            logger,
            ("verify_ssl", where),
            "verify_ssl: false: nobody checks the certificate of %s, so whoever stands between reads prompts and key; "
            "let SSL_CERT_FILE name a certificate that you trust instead",
            where,
        )
    shell = http_library()
    library: ModuleType = shell.library
    engines = Engines(library, connection, base_url)
    # Redirects of calls are followed below (`layers.redirect`), where the call stays one; these are of other requests.
    arguments: dict[str, Any] = {"timeout": connection.timeout(library), "headers": headers, "follow_redirects": True}
    sync = shell(engines.sync(), send, http2=connection.http2, key=key, banned=banned)
    with library.Client(transport=sync, **arguments) as client:
        asynchronous = shell(engines.asynchronous(), send, http2=connection.http2, key=key, banned=banned)
        async with library.AsyncClient(transport=asynchronous, **arguments) as async_client:
            yield client, async_client, arguments["timeout"]
