"""A blocking engine on urllib3, whose cost of a request does not grow with the number of connections.

See `aiohttp_engine`. The exceptions raised here are those of httpx (or httpx2) for the same faults.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException, HTTPResponse, RemoteDisconnected, parse_headers
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3 import connection, connectionpool, exceptions
from urllib3.util import SKIP_HEADER, Timeout, make_headers

from nat_dynamo_plugin.http.streams import as_stream, body_of, url_of

_NO_DEFAULTS = ("accept-encoding", "user-agent")
"""Headers that urllib3 would add; the caller's client has set its own."""
_PIECE_BYTES = 65_536
_MAX_INTERIM = 100
"""Interim answers (1xx) before one is given up; each has the read timeout of its own."""
_sending = threading.local()
"""`seconds`: how long this thread's request may wait for the server to take its data; urllib3 has no such timeout."""


class WriteTimeout(TimeoutError):
    """The server does not take the body."""


def exception_name(error: BaseException) -> str:
    """Name of httpx' exception for one of urllib3."""
    if "Tunnel connection failed" in str(error):  # the standard library says it in words only
        return "ProxyError"
    if isinstance(error, exceptions.ProxyError):
        error = error.original_error  # no connection to the proxy
    if isinstance(error, exceptions.ConnectTimeoutError) and not isinstance(error, exceptions.NewConnectionError):
        return "ConnectTimeout"
    if isinstance(error, exceptions.NewConnectionError | exceptions.SSLError):
        return "ConnectError"
    if isinstance(error, exceptions.ReadTimeoutError):
        return "ReadTimeout"
    if isinstance(error, exceptions.EmptyPoolError):
        return "PoolTimeout"
    if isinstance(error, exceptions.LocationValueError | exceptions.URLSchemeUnknown):
        return "UnsupportedProtocol"
    if isinstance(error, ValueError) and not isinstance(error, exceptions.HTTPError):
        return "LocalProtocolError"
    cause = error.args[-1] if isinstance(error, exceptions.HTTPError) and error.args else error
    if isinstance(cause, TimeoutError):
        return "WriteTimeout" if isinstance(cause, WriteTimeout) else "ReadTimeout"
    # `RemoteDisconnected` is a reset by its class, but means an answer that never began.
    return (
        "ReadError"
        if isinstance(cause, OSError) and not isinstance(cause, RemoteDisconnected)
        else "RemoteProtocolError"
    )


class Urllib3Transport:
    """A transport for any thread; interface of `httpx.BaseTransport`.

    Args:
        library: httpx or httpx2, whose responses and exceptions these are.
        ssl: the TLS context.
        max_connections: most connections to a host at once; further threads wait for one.
        proxy: URL of an HTTP proxy.
    """

    def __init__(self, library: ModuleType, *, ssl: Any, max_connections: int, proxy: str | None = None) -> None:
        self._library = library
        self._ssl = ssl
        self._max_connections = max_connections
        self._proxy = proxy
        self._inherited: Any = None
        self._open()

    def _open(self) -> None:
        arguments: dict[str, Any] = {
            "maxsize": self._max_connections,
            "block": True,
            "ssl_context": self._ssl,
            "retries": False,
            # Through a proxy urllib3 would wait for each other's acknowledgements (Nagle's algorithm).
            "socket_options": [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        }
        self._process = os.getpid()
        if self._proxy is None:
            self._pools = urllib3.PoolManager(**arguments)
        else:
            parts = urlsplit(self._proxy)
            user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            self._pools = urllib3.ProxyManager(
                f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
                proxy_headers=make_headers(proxy_basic_auth=user) if parts.username is not None else None,
                proxy_ssl_context=self._ssl,
                **arguments,
            )
        self._pools.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def handle_request(self, request: Any) -> Any:
        """Send a request; gives the library's response, its body unread."""
        if self._process != os.getpid():
            # A fork has the connections of its parent, who goes on using them; not to be closed or looked at here.
            self._inherited = self._pools
            self._open()
        timeout = request.extensions.get("timeout", {})
        _sending.seconds = timeout.get("write")
        headers = urllib3.HTTPHeaderDict()
        for name, value in request.headers.raw:
            headers.add(name.decode("latin-1"), value.decode("latin-1"))
        for name in _NO_DEFAULTS:
            if name not in headers:
                headers[name] = SKIP_HEADER
        body = _Body(body_of(request.stream, self._library))
        try:
            answer = self._pools.urlopen(
                request.method,
                url_of(request),
                body=body.to_send,
                headers=headers,
                timeout=Timeout(connect=timeout.get("connect"), read=timeout.get("read")),
                pool_timeout=timeout.get("pool"),
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (exceptions.HTTPError, OSError, ValueError) as error:
            if body.failed is not None:
                raise body.failed from None
            raise self._mapped(error) from error
        return self._library.Response(
            answer.status,
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.iteritems()],
            stream=as_stream(_Answer, self._library)(self, answer),
            extensions={
                "http_version": b"HTTP/1.0" if answer.version == 10 else b"HTTP/1.1",
                "reason_phrase": (answer.reason or "").encode("latin-1"),
            },
        )

    def close(self) -> None:
        """Close all connections; one that is in use is closed when its answer has been read."""
        # urllib3 leaves that to the garbage collector, and its exceptions, which a caller may keep, hold the pool.
        pools: Any = self._pools.pools
        for key in pools.keys():  # noqa: SIM118 - it is no dict, and can not be iterated
            pools[key].shut()
        self._pools.clear()

    def _mapped(self, error: BaseException) -> Exception:
        made: Exception = getattr(self._library, exception_name(error))(str(error) or type(error).__name__)
        return made


class _Body:
    """A request's body.

    Attributes:
        to_send: for urllib3.
        failed: what the caller's iterator raised.
    """

    def __init__(self, body: Any) -> None:
        self.failed: Exception | None = None
        self.to_send = body if body is None or isinstance(body, bytes) else self._parts(body)

    def _parts(self, body: Any) -> Iterator[bytes]:
        try:
            yield from body
        except Exception as error:
            self.failed = error
            raise


class _Answer:
    """The body of an answer."""

    def __init__(self, transport: Urllib3Transport, answer: Any) -> None:
        self._transport = transport
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        answer = self._answer
        try:
            piece = answer.read1(_PIECE_BYTES, decode_content=False)
            if not piece and answer.length_remaining is None and "transfer-encoding" not in answer.headers:
                # The standard library takes headers that were cut off for whole ones.
                raise exceptions.ProtocolError("the connection was closed within the headers")
            while piece:
                yield piece
                piece = answer.read1(_PIECE_BYTES, decode_content=False)
        except (exceptions.HTTPError, OSError) as error:
            raise self._transport._mapped(error) from error

    def hurry(self, seconds: float) -> None:
        """Wait for the next bytes no longer than this."""
        socket_of = getattr(self._answer.connection, "sock", None)
        if socket_of is not None and (socket_of.gettimeout() or seconds) >= seconds:
            socket_of.settimeout(seconds)

    def read_end(self, seconds: float) -> bool:
        """Read what ends a body whose last bytes were taken, if it comes soon; whether it came."""
        socket_of = getattr(self._answer.connection, "sock", None)
        with suppress(exceptions.HTTPError, OSError, ValueError):
            if socket_of is not None:
                socket_of.settimeout(seconds)
                return not self._answer.read1(_PIECE_BYTES, decode_content=False)
        return False

    def close(self) -> None:
        """Give the connection back if the body was read to its end, close it if not."""
        self._answer.close()
        self._answer.release_conn()


class _Sends:
    """A connection that gives sending a timeout of its own; urllib3 uses that for connecting."""

    def send(self, data: Any) -> None:
        """Send, blocking."""
        to: Any = super()
        sock = getattr(self, "sock", None)
        if sock is None:  # connects first
            to.send(data)
            return
        before = sock.gettimeout()
        sock.settimeout(_sending.seconds)
        try:
            to.send(data)
        except TimeoutError:
            raise WriteTimeout(f"the server took no data for {_sending.seconds} s") from None
        sock.settimeout(before)


class _FinalResponse(HTTPResponse):
    """Passes over interim answers; the standard library knows 100 alone, and takes 103 for the answer itself."""

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MAX_INTERIM):
            read: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 101 < read[1] < 200:
                return read
            parse_headers(self.fp)
        raise HTTPException(f"more than {_MAX_INTERIM} interim answers")


class _Connection(_Sends, connection.HTTPConnection):
    response_class = _FinalResponse


class _TlsConnection(_Sends, connection.HTTPSConnection):
    response_class = _FinalResponse


class _Shuts:
    """A pool that keeps no connection once it is shut; who waits for one still gets one."""

    pool: Any
    is_shut = False

    def shut(self) -> None:
        """Close the idle connections now and the others when they come back."""
        self.is_shut = True
        kept = []
        with suppress(queue.Empty):
            while True:
                kept.append(self.pool.get(block=False))
        for one in kept:
            self._put_conn(one)

    def _put_conn(self, conn: Any) -> None:
        if self.is_shut and conn is not None:
            conn.close()  # it opens again for whoever gets it
        to: Any = super()
        to._put_conn(conn)


class _Pool(_Shuts, connectionpool.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(_Shuts, connectionpool.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection

    def _validate_conn(self, conn: Any) -> None:
        # Without the warning about certificates that are not checked: the user has said so.
        if conn.is_closed:
            self._in_time(conn, conn.connect)

    def _prepare_proxy(self, conn: Any) -> None:
        self._in_time(conn, lambda: super(_TlsPool, self)._prepare_proxy(conn))

    @staticmethod
    def _in_time(conn: Any, connect: Callable[[], None]) -> None:
        try:
            connect()
        except TimeoutError as error:
            # urllib3 would call it a timeout of reading.
            raise exceptions.ConnectTimeoutError(conn, f"TLS took longer than {conn.timeout} s") from error
