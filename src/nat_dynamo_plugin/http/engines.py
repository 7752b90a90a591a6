"""What really sends: an engine with certificates, proxies and limits, one for each event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

logger = logging.getLogger(__name__)

HTTPX_SLOW_CALLS = 64
"""With more calls than this under way at once, httpx takes longer for each than it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How a client connects.

    Attributes:
        max_connections: most connections at once, all of which stay open when idle.
        engine: `fast` (aiohttp for async calls, urllib3 for blocking ones) or `httpx`, which gets slow with many calls
            at once.
        http2: speak HTTP/2 where the server does.
        verify_ssl: check TLS certificates.
        trust_env: take proxies and certificates from the environment.
        connect_s, read_s, write_s, pool_s: longest waits, in seconds, for a connection, the next bytes of an answer,
            sending the next bytes, and a free connection.
    """

    max_connections: int = 1000
    engine: Literal["fast", "httpx"] = "fast"
    http2: bool = False
    verify_ssl: bool = True
    trust_env: bool = True
    connect_s: float = 10.0
    read_s: float = 600.0
    write_s: float = 600.0
    pool_s: float = 600.0

    def timeout(self, library: ModuleType) -> Any:
        """The four timeouts: an LLM may think for minutes while a connect must fail in seconds."""
        return library.Timeout(connect=self.connect_s, read=self.read_s, write=self.write_s, pool=self.pool_s)


def proxy_for(url: str | None) -> str | None:
    """The proxy that the environment names for a URL (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`).

    httpx reads them only if it may make its transports itself.
    """
    parts = urlsplit(url or "https://api.openai.com")
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or not parts.hostname or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class Engines:
    """Makes the transports of one client pair, of httpx or httpx2.

    Args:
        library: httpx or httpx2.
        connection: how to connect.
        base_url: where to, for the choice of a proxy.
    """

    def __init__(self, library: ModuleType, connection: Connection, base_url: str | None) -> None:
        self._library = library
        self._connection = connection
        self._proxy = proxy_for(base_url) if connection.trust_env else None
        # Reading the certificates takes tens of ms, so all transports share them.
        self._verify = library.create_ssl_context(verify=connection.verify_ssl, trust_env=connection.trust_env)
        # HTTP/2, and proxies other than HTTP's, are beyond the other engines.
        http_proxy = self._proxy is None or self._proxy.startswith(("http://", "https://"))
        chosen = connection.engine == "httpx"
        self._is_httpx = chosen or connection.http2 or not http_proxy
        self._crowd = Crowd(
            "leave connection.engine at fast" if chosen else "connection.engine fast speaks no HTTP/2 and no SOCKS"
        )

    def _arguments(self, keepalive: int | None) -> dict[str, Any]:
        most = self._connection.max_connections
        limits = self._library.Limits(
            max_connections=most, max_keepalive_connections=most if keepalive is None else keepalive
        )
        return {
            "verify": self._verify,
            "http2": self._connection.http2,
            "limits": limits,
            "trust_env": self._connection.trust_env,
            "proxy": self._proxy,
        }

    def sync(self) -> Any:
        """A blocking transport for any thread."""
        if self._is_httpx:
            return _SyncHttpx(self._library.HTTPTransport(**self._arguments(None)), self._crowd)
        from nat_dynamo_plugin.http.urllib3_engine import Urllib3Transport

        return Urllib3Transport(self._library, **self._few_arguments)

    def asynchronous(self) -> AnyLoopTransport:
        """An async transport for any event loop; make it in the one that closes it."""
        return AnyLoopTransport(self._of_loop(keepalive=True), lambda: self._of_loop(keepalive=False))

    def _of_loop(self, *, keepalive: bool) -> Any:
        if self._is_httpx:
            arguments = self._arguments(None if keepalive else 0)
            return _AsyncHttpx(self._library.AsyncHTTPTransport(**arguments), self._crowd)
        from nat_dynamo_plugin.http.aiohttp_engine import AiohttpTransport

        return AiohttpTransport(self._library, keepalive=keepalive, **self._few_arguments)

    @property
    def _few_arguments(self) -> dict[str, Any]:
        return {"ssl": self._verify, "max_connections": self._connection.max_connections, "proxy": self._proxy}


class Crowd:
    """Counts the calls under way; says once that there are too many of them for httpx.

    Args:
        way_out: what to do about it.
    """

    def __init__(self, way_out: str) -> None:
        self._way_out = way_out
        self._calls = 0
        self._said = False
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._calls += 1
            say = self._calls > HTTPX_SLOW_CALLS and not self._said
            self._said |= say
        if say:
            logger.warning(
                "Over %d calls wait for an answer at once, and httpx, which sends them, gets slow with that many; %s",
                HTTPX_SLOW_CALLS,
                self._way_out,
            )

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._calls -= 1


class _SyncHttpx:
    def __init__(self, transport: Any, crowd: Crowd) -> None:
        self._crowd = crowd
        self._transport = transport
        self.close = transport.close

    def handle_request(self, request: Any) -> Any:
        with self._crowd:
            return self._transport.handle_request(request)


class _AsyncHttpx:
    def __init__(self, transport: Any, crowd: Crowd) -> None:
        self._crowd = crowd
        self._transport = transport
        self.aclose = transport.aclose

    async def handle_async_request(self, request: Any) -> Any:
        with self._crowd:
            return await self._transport.handle_async_request(request)


class AnyLoopTransport:
    """Uses one transport in the event loop it was made in, and gives every other loop a transport of its own.

    A connection belongs to the event loop it was opened in. The synchronous calls of frameworks that are asynchronous
    inside (Strands' `agent(...)`, ADK's `Runner.run`) start a loop for each call, in which a connection of another
    loop fails with "Event loop is closed". Connections of such passing loops are not kept after the answer, because
    nobody could close them once their loop is gone.

    Args:
        transport: for the loop that runs now.
        make: makes a transport for another one, which keeps no idle connection.
    """

    def __init__(self, transport: Any, make: Callable[[], Any]) -> None:
        self._make = make
        self._home = asyncio.get_running_loop()
        self._transport = transport
        self._others: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self._lock = threading.Lock()

    async def handle_async_request(self, request: Any) -> Any:
        """Send the request over a connection of the running loop."""
        loop = asyncio.get_running_loop()
        if loop is self._home:
            return await self._transport.handle_async_request(request)
        with self._lock:
            transport = self._others.get(loop)
            if transport is None:
                transport = self._others[loop] = self._make()
        return await transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections of the loop that this was made in."""
        await self._transport.aclose()
