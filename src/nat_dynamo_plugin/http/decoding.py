"""Answers whose content encoding is undone while they come, so that all who look at them see what they say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from nat_dynamo_plugin.http.encodings import decoder, is_left_to_library

MAX_PIECE_BYTES = 64 * 2**20
"""What one piece of an answer may hold at most, in bytes."""
_DESCRIBED = ("content-encoding", "content-length")


class Decoded:
    """The body of an answer, decoded.

    An encoding that nobody here can undo is left alone, as HTTP libraries do: some servers name one where there is
    none.

    Args:
        stream: the body as it comes.
        encoding: its content encoding.
        broken: makes the exception for bytes that are no such encoding.
    """

    def __init__(self, stream: Any, encoding: str, broken: Callable[[str], Exception]) -> None:
        self._stream = stream
        self._encoding = encoding
        self._broken = broken
        self._pieces: list[bytes] = []
        self._size = 0
        self._push = decoder(encoding, self._take)

    def _take(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MAX_PIECE_BYTES:
            raise OverflowError(f"more than {MAX_PIECE_BYTES} bytes in one piece")
        self._pieces.append(piece)

    def _decode(self, chunk: bytes) -> list[bytes]:
        if self._push is None:
            return [chunk]
        self._size, self._pieces = 0, []
        try:
            self._push(chunk)
        except Exception as error:  # each library has its own
            raise self._broken(f"the answer's {self._encoding} encoding is broken: {error}") from error
        return self._pieces

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            yield from self._decode(chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            for piece in self._decode(chunk):
                yield piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)  # closing, and what engines offer besides


def decode(native: Any, broken: Callable[[str], Exception]) -> None:
    """Have the body of a response decoded, and its headers say so.

    Left to the HTTP library is what it may be able to decode and we are not.
    """
    headers = native.headers
    if "content-encoding" not in headers:
        return
    encoding = headers["content-encoding"]
    if decoder(encoding, len) is None and is_left_to_library(encoding):
        return
    native.stream = Decoded(native.stream, encoding, broken)
    for name in _DESCRIBED:
        if name in headers:
            del headers[name]
