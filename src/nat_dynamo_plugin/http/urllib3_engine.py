"""A blocking engine on urllib3, whose cost of a request does not grow with the number of connections.

See `aiohttp_engine`. The exceptions raised here are those of httpx (or httpx2) for the same faults.
"""

from __future__ import annotations

from collections.abc import Iterator
from http.client import IncompleteRead
from types import ModuleType
from typing import Any

import urllib3
from urllib3 import exceptions
from urllib3.util import SKIP_HEADER, Timeout

from nat_dynamo_plugin.http.streams import as_stream, body_of

_NO_DEFAULTS = ("accept-encoding", "user-agent")
"""Headers that urllib3 would add; the caller's client has set its own."""
_PIECE_BYTES = 65_536


def exception_name(error: BaseException) -> str:
    """Name of httpx' exception for one of urllib3."""
    if isinstance(error, exceptions.ConnectTimeoutError) and not isinstance(error, exceptions.NewConnectionError):
        return "ConnectTimeout"
    if isinstance(error, exceptions.NewConnectionError | exceptions.SSLError):
        return "ConnectError"
    if isinstance(error, exceptions.ProxyError):
        return "ProxyError"
    if isinstance(error, exceptions.ReadTimeoutError | TimeoutError):
        return "ReadTimeout"
    if isinstance(error, exceptions.EmptyPoolError):
        return "PoolTimeout"
    if isinstance(error, exceptions.LocationValueError | exceptions.URLSchemeUnknown):
        return "UnsupportedProtocol"
    cause = error.args[-1] if error.args else None
    if isinstance(cause, ConnectionError | OSError) and not isinstance(cause, IncompleteRead | EOFError):
        # `http.client.RemoteDisconnected` is a reset by its class, but means an answer that never began.
        return "RemoteProtocolError" if type(cause).__name__ == "RemoteDisconnected" else "ReadError"
    return "RemoteProtocolError"


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
        pools: dict[str, Any] = {"maxsize": max_connections, "block": True, "ssl_context": ssl, "retries": False}
        self._pools = urllib3.ProxyManager(proxy, **pools) if proxy else urllib3.PoolManager(**pools)

    def handle_request(self, request: Any) -> Any:
        """Send a request; gives the library's response, its body unread."""
        timeout = request.extensions.get("timeout", {})
        headers = urllib3.HTTPHeaderDict()
        for name, value in request.headers.raw:
            headers.add(name.decode("latin-1"), value.decode("latin-1"))
        for name in _NO_DEFAULTS:
            if name not in headers:
                headers[name] = SKIP_HEADER
        try:
            answer = self._pools.urlopen(
                request.method,
                str(request.url),
                body=body_of(request.stream),
                headers=headers,
                timeout=Timeout(connect=timeout.get("connect"), read=timeout.get("read")),
                pool_timeout=timeout.get("pool"),
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (exceptions.HTTPError, OSError) as error:
            raise self._mapped(error) from error
        return self._library.Response(
            answer.status,
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.iteritems()],
            stream=as_stream(_Answer, self._library)(self, answer),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": (answer.reason or "").encode("latin-1")},
        )

    def close(self) -> None:
        """Close all connections."""
        self._pools.clear()

    def _mapped(self, error: BaseException) -> Exception:
        made: Exception = getattr(self._library, exception_name(error))(str(error) or type(error).__name__)
        return made


class _Answer:
    """The body of an answer."""

    def __init__(self, transport: Urllib3Transport, answer: Any) -> None:
        self._transport = transport
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        answer = self._answer
        try:
            piece = answer.read1(_PIECE_BYTES, decode_content=False)
            if not piece and not {"content-length", "transfer-encoding"} & {name.lower() for name in answer.headers}:
                # The standard library takes headers that were cut off for whole ones.
                raise exceptions.ProtocolError("the connection was closed within the headers")
            while piece:
                yield piece
                piece = answer.read1(_PIECE_BYTES, decode_content=False)
        except (exceptions.HTTPError, OSError) as error:
            raise self._transport._mapped(error) from error

    def close(self) -> None:
        """Give the connection back if the body was read to its end, close it if not."""
        self._answer.close()
        self._answer.release_conn()
