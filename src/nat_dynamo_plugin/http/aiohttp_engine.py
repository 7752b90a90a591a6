"""An async engine on aiohttp, whose cost of a request does not grow with the number of connections.

httpcore looks at every connection of its pool for every request, several times, so 256 calls at once cost it more than
a server's answer. The exceptions raised here are those of httpx (or httpx2) for the same faults.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator
from functools import lru_cache
from types import ModuleType
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from multidict import CIMultiDict
from yarl import URL

from nat_dynamo_plugin.http.streams import as_stream, body_of, url_of

_NO_DEFAULTS = frozenset({"User-Agent", "Accept", "Accept-Encoding", "Content-Type"})
"""Headers that aiohttp would add; the caller's client has set its own."""
_PIECE_BYTES = 262_144
"""What is handed to the socket at once, of a large body."""

# The same few for every call.
_url = lru_cache(maxsize=256)(lambda text: URL(text, encoded=True))


class WriteTimeout(TimeoutError):
    """The server does not take the body."""


class Closed(aiohttp.ClientConnectionError):
    """The client was closed while somebody read."""


def exception_name(error: BaseException) -> str:
    """Name of httpx' exception for one of aiohttp."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "ConnectTimeout"
    if isinstance(error, WriteTimeout):
        return "WriteTimeout"
    if isinstance(error, aiohttp.ServerTimeoutError | TimeoutError):
        return "ReadTimeout"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return "ProxyError"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "ConnectError"
    if isinstance(error, aiohttp.NonHttpUrlClientError | aiohttp.InvalidURL):
        return "UnsupportedProtocol"
    # Of a body that breaks off, aiohttp names the socket's error in the message only.
    if isinstance(error, aiohttp.ClientOSError | ConnectionError | Closed) or "ConnectionResetError" in str(error):
        return "ReadError"
    return "LocalProtocolError" if isinstance(error, ValueError) else "RemoteProtocolError"


class AiohttpTransport:
    """A transport of one event loop; interface of `httpx.AsyncBaseTransport`.

    Args:
        library: httpx or httpx2, whose responses and exceptions these are.
        ssl: the TLS context.
        max_connections: most requests at once; others wait in the order in which they came.
        keepalive: whether connections stay open after an answer. Without it nothing has to be closed: all that was
            opened is closed with the last answer.
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
        self._under_way = 0
        self._answers: set[_Answer] = set()
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request; gives the library's response, its body unread."""
        timeout = request.extensions.get("timeout", {})
        await self._take_place(timeout.get("pool"))
        self._under_way += 1
        body = None
        try:
            session = self._session or self._opened()
            body = body_of(request.stream, self._library)
            headers = _headers(request.headers.raw)
            if body is not None and not isinstance(body, bytes):
                body = _Upload(body, timeout.get("write"))
                headers.pop("transfer-encoding", None)  # aiohttp sets it
            answer = await session.request(
                request.method,
                _url(url_of(request)),
                headers=headers,
                data=body,
                allow_redirects=False,
                timeout=_timeouts(timeout.get("connect"), timeout.get("read")),
                proxy=self._proxy,
            )
        except BaseException as error:
            await self._leave()
            if isinstance(body, _Upload) and body.failed is not None:
                raise body.failed from None  # what the caller's own iterator raised
            if isinstance(error, aiohttp.ClientError | OSError | ValueError):
                raise self._mapped(error) from error
            raise
        return self._library.Response(
            answer.status,
            headers=answer.raw_headers,
            stream=await self._body(answer),
            extensions={
                "http_version": b"HTTP/%d.%d" % (answer.version or aiohttp.HttpVersion11),
                "reason_phrase": (answer.reason or "").encode("utf-8", "surrogateescape"),
            },
        )

    async def aclose(self) -> None:
        """Close all connections; whoever still reads an answer gets an exception."""
        for answer in self._answers:
            answer.broken_off()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _body(self, answer: aiohttp.ClientResponse) -> Any:
        if not answer.content.is_eof() or answer.content.exception() is not None:
            return as_stream(_Answer, self._library)(self, answer)
        # Short answers come in one piece with their headers.
        body = answer.content.read_nowait()
        await self._leave()
        return self._library.ByteStream(body)

    def _opened(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=0, ssl=self._ssl, force_close=not self._keepalive),
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

    async def _leave(self) -> None:
        self._places.release()
        self._under_way -= 1
        if not self._keepalive and not self._under_way:
            await self.aclose()

    def _mapped(self, error: BaseException) -> Exception:
        made: Exception = getattr(self._library, exception_name(error))(str(error) or type(error).__name__)
        return made


class _Answer:
    """The body of an answer; gives its place back when it is closed."""

    def __init__(self, transport: AiohttpTransport, answer: aiohttp.ClientResponse) -> None:
        self._transport = transport
        self._answer = answer
        transport._answers.add(self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._answer.content
        try:
            while chunk := await content.readany():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            # What came before the fault is the caller's, who may not have been here to take it.
            if rest := b"".join(getattr(content, "_buffer", ())):
                yield rest
            raise self._transport._mapped(error) from error

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, close it if not."""
        answers = self._transport._answers
        if self in answers:
            answers.remove(self)
            self._answer.close()
            await self._transport._leave()

    def broken_off(self) -> None:
        """Tell who reads that there will be no more; aiohttp would leave them waiting."""
        if not self._answer.content.is_eof():
            self._answer.content.set_exception(Closed("the client was closed"))


class _Connector(aiohttp.TCPConnector):
    """Leaves kept connections alone that the server has closed.

    aiohttp hears of that from the event loop. Where something has blocked the loop since, as many tools do, it has not
    heard yet, and the request would be lost. So look at the socket, as httpx does.
    """

    async def _get(self, *args: Any) -> Any:
        while (connection := await super()._get(*args)) is not None:
            transport = connection.transport
            if transport is not None:
                poll = select.poll()
                poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
                if not poll.poll(0):
                    break
            connection.close()
        return connection


class _Upload(Payload):
    """A large body, or one that comes piece by piece: each piece is handed over within `seconds`.

    Attributes:
        failed: what the caller's iterator raised.
    """

    def __init__(self, stream: Any, seconds: float | None) -> None:
        super().__init__(stream)
        self._seconds = seconds
        self.failed: Exception | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """For logs of aiohttp."""
        return repr(self._value)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the body."""
        try:
            parts = aiter(self._value)
            while (part := await self._next(parts)) is not None:
                view = memoryview(part)
                for start in range(0, len(view), _PIECE_BYTES):
                    async with asyncio.timeout(self._seconds):
                        await writer.write(view[start : start + _PIECE_BYTES])
        except BaseException as error:
            # Nothing more will come of this connection, and closing it would wait until the server takes the rest.
            if (transport := getattr(writer, "transport", None)) is not None:
                transport.abort()
            if isinstance(error, TimeoutError) and error is not self.failed:
                raise WriteTimeout(f"the server took no data for {self._seconds} s") from None
            raise

    async def _next(self, parts: AsyncIterator[bytes]) -> bytes | None:
        try:
            return await anext(parts, None)
        except Exception as error:
            self.failed = error
            raise


def _headers(raw: list[tuple[bytes, bytes]]) -> CIMultiDict[str]:
    # aiohttp encodes them as UTF-8, so only UTF-8 keeps its bytes.
    return CIMultiDict((str(name, "ascii"), str(value, "utf-8")) for name, value in raw)


@lru_cache(maxsize=256)
def _timeouts(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    # `connect` is finding the address too, as the pool is ours.
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=read)
