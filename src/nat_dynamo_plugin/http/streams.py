"""What the HTTP libraries want to be given: bodies that are streams of theirs, and headers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from functools import cache
from types import ModuleType
from typing import Any, cast


class Parts:
    """A request body in parts; can be sent again."""

    def __init__(self, parts: tuple[bytes | memoryview, ...]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[bytes]:
        # The libraries ask for bytes only; what sends HTTP/1.1 takes any buffer.
        return iter(cast("tuple[bytes, ...]", self.parts))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in cast("tuple[bytes, ...]", self.parts):
            yield part


@cache
def as_stream(cls: type, library: ModuleType) -> Any:
    """A class as a stream of httpx or httpx2, which look at the type."""
    return type(cls.__name__, (cls, library.SyncByteStream, library.AsyncByteStream), {})


SMALL_BYTES = 65_536
"""A body up to this length is sent in one piece; it fits into a socket's buffer, or nearly so."""


def body_of(stream: Any, library: ModuleType) -> Any:
    """A request's body for an engine: its bytes if it is small, `None` if it is empty, else a stream of its parts.

    Small parts are joined, so that they leave in one piece; large ones are not copied.
    """
    if isinstance(stream, library.ByteStream):
        stream = Parts(tuple(stream))
    if not isinstance(stream, Parts):
        return stream
    parts = stream.parts
    if sum(map(len, parts)) > SMALL_BYTES:
        return stream
    return (parts[0] if len(parts) == 1 else b"".join(parts)) or None


def url_of(request: Any) -> str:
    """A request's URL without a user's name or password, which are in a header by now."""
    url = request.url
    return str(url.copy_with(userinfo=b"") if url.userinfo else url)


class SentHeaders(MutableMapping[str, str]):
    """The headers of a request that is being sent.

    What sends it wants `raw` alone; the library's own class, which checks and converts each header, takes longer to
    make than all else that happens to a call. Whoever wants more gets it from that class.

    Attributes:
        raw: names and values as they go over the wire.
    """

    __slots__ = ("_made", "_make", "raw")

    def __init__(self, raw: list[tuple[bytes, bytes]], make: Callable[[list[tuple[bytes, bytes]]], Any]) -> None:
        self.raw = raw
        self._make = make
        self._made: Any = None

    def _headers(self) -> Any:
        if self._made is None:
            self._made = self._make(self.raw)
        return self._made

    def __getitem__(self, name: str) -> str:
        value: str = self._headers()[name]
        return value

    def __setitem__(self, name: str, value: str) -> None:
        self._headers()[name] = value
        self.raw = self._made.raw

    def __delitem__(self, name: str) -> None:
        del self._headers()[name]
        self.raw = self._made.raw

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers())

    def __len__(self) -> int:
        return len(self._headers())

    def __eq__(self, other: object) -> bool:
        return bool(self._headers() == (other._headers() if isinstance(other, SentHeaders) else other))

    def __repr__(self) -> str:
        return repr(self._headers())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._headers(), name)
