"""Clients on the engines, of httpx and httpx2, blocking and not."""

from __future__ import annotations

import asyncio
import gc
import ssl
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from nat_dynamo_plugin.http.engines import Connection, Engines

from .peers import Server, certificate, shell

Post = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def _no_garbage_of_others() -> None:
    """Collects what tests of frameworks left open, so that a warning here is about an engine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        _close_set_loop()
        gc.collect()


def _close_set_loop() -> None:
    """Close the event loop that is set, which `asyncio.run` drops as it is: pytest's plugin sets one again after
    each async test, and it would be garbage in the middle of whatever comes next."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there may be none, which is deprecated
        try:
            loop = asyncio.get_event_loop_policy().get_event_loop()
        except RuntimeError:
            return
        loop.close()
        asyncio.set_event_loop(None)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate, and the context of a server that has it."""
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_server(tls: tuple[Path, ssl.SSLContext]) -> Iterator[Server]:
    made = Server(tls[1])
    made.serve = made.answers
    yield made
    made.close()


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    made: ModuleType = request.param
    return made


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def post(request: pytest.FixtureRequest, library: ModuleType) -> Post:
    """Sends a request by an engine of the library; gives the response read to its end."""
    asynchronous = request.param

    def send(url: str, engine: Any = "fast", method: str = "POST", **kwargs: Any) -> Any:
        fields = {name: kwargs.pop(name) for name in list(kwargs) if name in Connection.__slots__}
        connection = Connection(engine=engine, **fields)
        engines = Engines(library, connection, url)
        timeout = connection.timeout(library)
        if method == "POST" and "content" not in kwargs:
            kwargs = {"json": {"a": 1}, **kwargs}
        if not asynchronous:
            with library.Client(transport=shell(library, engines.sync()), timeout=timeout) as client:
                return client.request(method, url, **kwargs)

        async def post() -> Any:
            async with library.AsyncClient(transport=shell(library, engines.asynchronous()), timeout=timeout) as client:
                return await client.request(method, url, **kwargs)

        _close_set_loop()
        answer = asyncio.run(post())
        gc.collect()
        return answer

    def without_warning(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return send(*args, **kwargs)

    without_warning.is_async = asynchronous  # type: ignore[attr-defined]
    return without_warning
