"""Entries as bytes: nothing but what was packed comes out."""

from __future__ import annotations

import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.cache.entry import HEAD_BYTES, AesSeal, Entry, NotReadable, created_of, pack, unpack

ENTRY = Entry(key="k", created=1234.5, answer=b'{"choices": []}', model="m", org="o", prompt_tokens=3)


@pytest.mark.parametrize("seal", [None, AesSeal("a secret")])
def test_what_goes_in_comes_out(seal: AesSeal | None) -> None:
    packed = pack(ENTRY, seal)
    assert unpack(packed, seal) == unpack(packed, seal, "k") == ENTRY
    assert created_of(packed[:HEAD_BYTES]) == 1234.5
    assert (b"choices" in packed) is (seal is None)


def test_each_is_sealed_anew() -> None:
    seal = AesSeal("a secret")
    assert pack(ENTRY, seal) != pack(ENTRY, seal)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        pickle.dumps(ENTRY.answer),
        b'{"choices": []}',
        bytes((2,)) + pack(ENTRY)[1:],
        pack(ENTRY)[:-1],
        pack(ENTRY)[:HEAD_BYTES] + msgspec.msgpack.encode({"key": 1}),
        pack(ENTRY, AesSeal("a secret")),
    ],
)
def test_what_is_no_entry_is_none(data: bytes) -> None:
    with pytest.raises(NotReadable):
        unpack(data)


def test_another_calls_entry_is_none() -> None:
    with pytest.raises(NotReadable, match="another call's"):
        unpack(pack(ENTRY), None, "other")


def test_what_is_not_encrypted_is_none_where_all_is() -> None:
    with pytest.raises(NotReadable, match="not encrypted"):
        unpack(pack(ENTRY), AesSeal("a secret"))
    with pytest.raises(NotReadable, match="another key"):
        unpack(pack(ENTRY, AesSeal("another")), AesSeal("a secret"))


SEALED = pack(ENTRY, AesSeal("a secret"))


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_no_byte_of_a_sealed_entry_can_be_changed(place: int, change: int) -> None:
    data = bytearray(SEALED)
    data[place] ^= change
    with pytest.raises(NotReadable):
        unpack(bytes(data), AesSeal("a secret"))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_entry_or_none(data: bytes) -> None:
    with pytest.raises(NotReadable):
        unpack(data)
