"""The httpx clients that every framework's client is built on: transport, retries, timeouts, limits."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import httpx
from httpx_retries import Retry, RetryTransport
from nat.builder.context import ContextState
from nat.llm.utils.constants import LLMHeaderPrefix

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.http.loops import AnyLoopTransport
from nat_dynamo_plugin.http.transport import DynamoTransport
from nat_dynamo_plugin.layers.errors import OpenAIErrors
from nat_dynamo_plugin.layers.retry import retry_policies
from nat_dynamo_plugin.service import Service, service_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HttpClients:
    """A pair of httpx clients for one LLM, and what the framework's client needs to know besides."""

    sync: httpx.Client
    asynchronous: httpx.AsyncClient
    timeout: httpx.Timeout
    service: Service

    @property
    def model_name(self) -> str:
        """The model's name at the server."""
        return self.service.model_name

    @property
    def base_url(self) -> str | None:
        """The server's OpenAI-compatible URL, or `None` for the OpenAI library's own default."""
        return self.service.base_url

    @property
    def api_key(self) -> str | None:
        """The key. Dynamo wants none, but the OpenAI library does, so a server of one's own gets a placeholder."""
        return self.service.api_key or ("unused" if self.service.base_url else None)

    def openai(self) -> OpenAI:
        """The OpenAI library's client on our sync httpx client, for frameworks that take one."""
        from openai import OpenAI

        return OpenAI(
            api_key=self.api_key, base_url=self.base_url, http_client=self.sync, timeout=self.timeout, max_retries=0
        )

    def async_openai(self) -> AsyncOpenAI:
        """The OpenAI library's client on our async httpx client, for frameworks that take one."""
        from openai import AsyncOpenAI

        return AsyncOpenAI(
            api_key=self.api_key,
            base_url=self.base_url,
            http_client=self.asynchronous,
            timeout=self.timeout,
            max_retries=0,
        )


def timeouts(config: DynamoModelConfig) -> httpx.Timeout:
    """The four timeouts in seconds: an LLM may think for minutes while a connect must fail in seconds."""
    return httpx.Timeout(
        connect=config.connect_timeout,
        read=config.request_timeout,
        write=config.request_timeout,
        pool=config.pool_timeout,
    )


def limits(config: DynamoModelConfig, keepalive: int | None = None) -> httpx.Limits:
    """At most `max_connections` at once, of which `keepalive` (all unless given) stay open when idle."""
    return httpx.Limits(
        max_connections=config.max_connections,
        max_keepalive_connections=config.max_connections if keepalive is None else keepalive,
    )


def _payload_headers(request: httpx.Request) -> None:
    """NAT's custom payload fields as `X-Payload-*` headers, as its own OpenAI client sends them."""
    message = ContextState.get().input_message.get()
    extra = getattr(message, "model_extra", None)
    for key, value in (extra or {}).items():
        if value is not None:
            try:
                request.headers[f"{LLMHeaderPrefix.PAYLOAD}-{key.replace('_', '-')}"] = str(value)
            except (UnicodeEncodeError, ValueError):
                logger.debug("The payload field %s can not travel in a header", key)


async def _payload_headers_async(request: httpx.Request) -> None:
    _payload_headers(request)


@asynccontextmanager
async def http_clients(config: DynamoModelConfig) -> AsyncIterator[HttpClients]:
    """The clients of a config, closed at the end of the block.

    Raises:
        ValueError: for `http2: true` without the package h2, and for a status pattern that is none.
    """
    if config.http2 and find_spec("h2") is None:
        raise ValueError(
            "http2=True: the package h2, which speaks HTTP/2, is not installed; install httpx[http2] or leave http2 out"
        )
    service = service_of(config)
    # Reading the certificates takes tens of ms, so all transports share them.
    verify = httpx.create_ssl_context(verify=config.verify_ssl)
    retry, retry_async = retry_policies(config) or (None, None)

    def wrapped(transport: httpx.BaseTransport | httpx.AsyncBaseTransport, policy: Retry | None) -> OpenAIErrors:
        return OpenAIErrors(
            DynamoTransport(
                transport if policy is None else RetryTransport(transport, policy),
                service.asking.planner,
                speaker=service.asking.speaker,
                workload=service.asking.workload,
                memory=service.memory,
            )
        )

    def async_transport(keepalive: int | None) -> httpx.AsyncHTTPTransport:
        return httpx.AsyncHTTPTransport(verify=verify, http2=config.http2, limits=limits(config, keepalive))

    timeout = timeouts(config)
    headers = {"x-tenant-id": config.cache_salt} if config.cache_salt else None
    with httpx.Client(
        transport=wrapped(httpx.HTTPTransport(verify=verify, http2=config.http2, limits=limits(config)), retry),
        timeout=timeout,
        headers=headers,
        event_hooks={"request": [_payload_headers]},
    ) as sync:
        async with httpx.AsyncClient(
            transport=wrapped(AnyLoopTransport(async_transport), retry_async),
            timeout=timeout,
            headers=headers,
            event_hooks={"request": [_payload_headers_async]},
        ) as asynchronous:
            yield HttpClients(sync, asynchronous, timeout, service)
