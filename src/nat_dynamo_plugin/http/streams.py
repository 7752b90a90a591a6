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


def body_of(stream: Any) -> Any:
    """A request's body as one piece of bytes if it is ours, else as the library has it."""
    if isinstance(stream, Parts):
        parts = stream.parts
        return parts[0] if len(parts) == 1 else b"".join(parts)
    return stream


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
