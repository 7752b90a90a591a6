"""Bodies as the HTTP libraries want them: instances of their stream classes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
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
