from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.http.encodings import PIECE_BYTES, decoder

TEXT = b"".join(b"line %d of an answer\n" % i for i in range(20_000))


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


def zstd(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    return bytes(zstandard.ZstdCompressor().compress(data))


COMPRESSORS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", lambda data: zlib.compress(data, wbits=31)),
    ("X-Gzip", lambda data: zlib.compress(data, wbits=31)),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstd),
    ("identity", bytes),
    ("", bytes),
    (",gzip , deflate", lambda data: zlib.compress(zlib.compress(data, wbits=31))),
]


def decoded(encoding: str, chunks: list[bytes]) -> list[bytes]:
    pieces: list[bytes] = []
    push = decoder(encoding, pieces.append)
    assert push is not None
    for chunk in chunks:
        push(chunk)
    return pieces


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSORS)
@pytest.mark.parametrize("step", [1, 7, 2**20])
def test_round_trip(encoding: str, compress: Callable[[bytes], bytes], step: int) -> None:
    text = TEXT if step > 1 else TEXT[:5000]
    data = compress(text)
    assert b"".join(decoded(encoding, [data[i : i + step] for i in range(0, len(data), step)])) == text


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSORS[:5])
def test_what_a_few_bytes_hold_comes_in_pieces(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    pieces = decoded(encoding, [compress(b"a" * 10_000_000)])
    assert sum(map(len, pieces)) == 10_000_000
    assert max(map(len, pieces)) <= 2 * PIECE_BYTES


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSORS[:5])
def test_who_takes_the_pieces_can_stop_it(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    taken: list[bytes] = []

    def take(piece: bytes) -> None:
        taken.append(piece)
        raise OverflowError

    push = decoder(encoding, take)
    assert push is not None
    with pytest.raises(OverflowError):
        push(compress(b"a" * 10_000_000))
    assert len(taken) == 1


@pytest.mark.parametrize("encoding", ["rot13", "gzip, rot13", "compress"])
def test_what_is_not_known(encoding: str) -> None:
    assert decoder(encoding, print) is None


@pytest.mark.parametrize(("encoding", "module"), [("zstd", "zstandard"), ("br", "brotli")])
def test_what_is_not_installed(encoding: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert decoder(encoding, print) is None


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
@given(data=st.binary(min_size=20, max_size=60))
def test_broken_bytes_raise_or_give_something(encoding: str, data: bytes) -> None:
    push = decoder(encoding, lambda piece: None)
    assert push is not None
    try:
        push(data)
    except Exception as error:
        assert "Error" in type(error).__name__ or isinstance(error, zlib.error)


class _FakeDecompressor:
    """What `brotli.Decompressor` does from 1.2 on, with another algorithm."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj()

    def process(self, data: bytes, output_buffer_limit: int) -> bytes:
        return self._inflater.decompress(self._inflater.unconsumed_tail + data, output_buffer_limit)

    def can_accept_more_data(self) -> bool:
        return True


def test_brotli_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = ModuleType("brotli")
    fake.Decompressor = _FakeDecompressor
    monkeypatch.setitem(sys.modules, "brotli", fake)
    pieces = decoded("br", [zlib.compress(TEXT)])
    assert b"".join(pieces) == TEXT and max(map(len, pieces)) <= PIECE_BYTES


def test_a_brotli_whose_output_nothing_bounds_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = ModuleType("brotli")
    fake.Decompressor = zlib.decompressobj
    monkeypatch.setitem(sys.modules, "brotli", fake)
    assert decoder("br", print) is None


def test_all_that_came_goes_on_at_once() -> None:
    for size in (PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 131_073, 1_000_000):
        data = zlib.compress(bytes(i * 7 % 251 for i in range(size)), 9, wbits=31)
        for end in range(len(data) - 12, len(data) + 1):
            expected = zlib.decompressobj(31).decompress(data[:end])
            assert b"".join(decoded("gzip", [data[:end]])) == expected
