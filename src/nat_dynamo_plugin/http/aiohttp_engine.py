"""An async engine on aiohttp, whose cost of a request does not grow with the number of connections.

httpcore looks at every connection of its pool for every request, several times, so 256 calls at once cost it more than
a server's answer. The exceptions raised here are those of httpx (or httpx2) for the same faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from nat_dynamo_plugin.http.streams import as_stream, body_of

_NO_DEFAULTS = frozenset({"User-Agent", "Accept", "Accept-Encoding", "Content-Type"})
"""Headers that aiohttp would add; the caller's client has set its own."""


def exception_name(error: BaseException) -> str:
    """Name of httpx' exception for one of aiohttp."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "ConnectTimeout"
    if isinstance(error, aiohttp.ServerTimeoutError | TimeoutError):
        return "ReadTimeout"
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return "ProxyError"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "ConnectError"
    if isinstance(error, aiohttp.NonHttpUrlClientError | aiohttp.InvalidURL):
        return "UnsupportedProtocol"
    # Of a body that breaks off, aiohttp names the socket's error in the message only.
    if isinstance(error, aiohttp.ClientOSError | ConnectionError) or "ConnectionResetError" in str(error):
        return "ReadError"
    return "RemoteProtocolError"


class AiohttpTransport:
    """A transport of one event loop; interface of `httpx.AsyncBaseTransport`.

    Args:
        library: httpx or httpx2, whose responses and exceptions these are.
        ssl: the TLS context.
        max_connections: most requests at once; others wait in the order in which they came.
        keepalive: whether connections stay open after an answer.
        proxy: URL of an HTTP proxy.
    """

    def __init__(
        self, library: ModuleType, *, ssl: Any, max_connections: int, keepalive: bool = True, proxy: str | None = None
    ) -> None:
        self._library = library
        self._ssl = ssl
        self._keepalive = keepalive
        self._proxy = proxy
        self._places = asyncio.Semaphore(max_connections)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request; gives the library's response, its body unread."""
        session = self._session or self._opened()
        timeout = request.extensions.get("timeout", {})
        await self._take_place(timeout.get("pool"))
        try:
            answer = await session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=CIMultiDict(
                    (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw
                ),
                data=body_of(request.stream),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=timeout.get("connect"), sock_read=timeout.get("read")
                ),
                proxy=self._proxy,
            )
        except (aiohttp.ClientError, OSError) as error:
            self._places.release()
            raise self._mapped(error) from error
        except BaseException:
            self._places.release()
            raise
        return self._library.Response(
            answer.status,
            headers=answer.raw_headers,
            stream=as_stream(_Answer, self._library)(self, answer),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": (answer.reason or "").encode("latin-1")},
        )

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._ssl, force_close=not self._keepalive)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),  # cookies are the client's
            auto_decompress=False,
            skip_auto_headers=_NO_DEFAULTS,
            max_line_size=65_536,
            max_field_size=65_536,
        )
        return self._session

    async def _take_place(self, seconds: float | None) -> None:
        places = self._places
        if not places.locked():
            await places.acquire()  # at once
            return
        try:
            async with asyncio.timeout(seconds):
                await places.acquire()
        except TimeoutError:
            raise self._library.PoolTimeout(f"no connection was free for {seconds} s") from None

    def _mapped(self, error: BaseException) -> Exception:
        made: Exception = getattr(self._library, exception_name(error))(str(error) or type(error).__name__)
        return made


class _Answer:
    """The body of an answer; gives its place back when it is closed."""

    def __init__(self, transport: AiohttpTransport, answer: aiohttp.ClientResponse) -> None:
        self._transport = transport
        self._answer = answer
        self._open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._answer.content
        try:
            while chunk := await content.readany():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise self._transport._mapped(error) from error

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, close it if not."""
        if self._open:
            self._open = False
            self._answer.close()
            self._transport._places.release()
