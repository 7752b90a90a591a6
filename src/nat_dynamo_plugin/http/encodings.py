"""Undo the content encoding of an answer while its bytes pass, in bounded memory. No I/O in here."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Protocol

PIECE_BYTES = 65_536
"""What is decoded goes on in pieces of about this size (bytes), however much an encoding may hide in few bytes."""

Push = Callable[[bytes], object]
"""Takes the next bytes."""


class _Brotli(Protocol):
    def process(self, data: bytes, output_buffer_limit: int) -> bytes: ...


def decoder(encoding: str, out: Push) -> Push | None:
    """What undoes a `Content-Encoding` (several are separated by commas) and gives what it held to `out`, in pieces.

    `None` for an encoding that is not known, or whose library (`zstandard`, or `brotli` from 1.2 on) is not installed.
    What is returned raises whatever its library does, if the bytes are broken, and whatever `out` does.
    """
    for name in encoding.lower().split(","):
        made = _MAKERS.get(name.strip(), _unknown)(out)
        if made is None:
            return None
        out = made
    return out


def _inflater(out: Push, wbits: int) -> Push:
    inflater = zlib.decompressobj(wbits)

    def push(chunk: bytes) -> None:
        more = True
        while chunk or more:
            piece = inflater.decompress(chunk, PIECE_BYTES)
            chunk, more = inflater.unconsumed_tail, len(piece) == PIECE_BYTES
            if piece:
                out(piece)

    return push


def _gzip(out: Push) -> Push:
    return _inflater(out, zlib.MAX_WBITS | 16)


def _deflate(out: Push) -> Push:
    """With the zlib header that RFC 9110 asks for, or without, as some servers have it."""
    head = b""
    inflate: Push | None = None

    def push(chunk: bytes) -> None:
        nonlocal head, inflate
        if inflate is None:
            head = chunk = head + chunk
            if len(head) < 2:
                return
            has_header = head[0] & 15 == 8 and int.from_bytes(head[:2]) % 31 == 0
            inflate = _inflater(out, zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        inflate(chunk)

    return push


class _Sink:
    def __init__(self, out: Push) -> None:
        self._out = out

    def write(self, data: bytes) -> int:
        self._out(bytes(data))
        return len(data)


def _zstd(out: Push) -> Push | None:
    try:
        import zstandard
    except ImportError:
        return None
    # Not `decompressobj`, which gives all that a chunk holds at once.
    return zstandard.ZstdDecompressor().stream_writer(_Sink(out), write_size=PIECE_BYTES).write  # type: ignore[arg-type]


def _brotli(out: Push) -> Push | None:
    try:
        import brotli  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    decompressor: _Brotli = brotli.Decompressor()
    if not hasattr(decompressor, "can_accept_more_data"):  # before 1.2 nothing bounds what comes out
        return None

    def push(chunk: bytes) -> None:
        piece = decompressor.process(chunk, output_buffer_limit=PIECE_BYTES)
        while piece:
            out(piece)
            piece = decompressor.process(b"", output_buffer_limit=PIECE_BYTES)

    return push


def _identity(out: Push) -> Push:
    return out


def _unknown(out: Push) -> None:
    return None


_MAKERS: dict[str, Callable[[Push], Push | None]] = {
    "": _identity,
    "identity": _identity,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
    "br": _brotli,
}


def is_left_to_library(encoding: str) -> bool:
    """Whether the HTTP library may undo a `Content-Encoding` that `decoder` can not: brotli by another package."""
    names = [name.strip() for name in encoding.lower().split(",")]
    if "br" not in names or not all(name in _MAKERS for name in names):
        return False
    return any(name in sys.modules or find_spec(name) is not None for name in ("brotli", "brotlicffi"))
