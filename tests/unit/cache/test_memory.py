"""The store in memory keeps its bounds."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.cache.memory import ENTRY_BYTES, MemoryStore


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def store(max_entries: int = 3, max_bytes: int = 10**6) -> tuple[MemoryStore, Clock, list[int]]:
    clock, evicted = Clock(), [0]

    def gone() -> None:
        evicted[0] += 1

    return MemoryStore(max_entries, max_bytes, gone, clock), clock, evicted


def get(one: MemoryStore, key: str) -> bytes | None:
    return one.claim(key, "", "m", None).value


def put(one: MemoryStore, key: str, value: bytes = b"v", ttl_s: float = 10.0, org: str = "", model: str = "m") -> None:
    one.put(key, org, model, value, ttl_s)


def test_the_least_recently_used_makes_room() -> None:
    one, _, evicted = store()
    for key in "abc":
        put(one, key)
    assert get(one, "a") == b"v"
    put(one, "d")
    assert [get(one, key) for key in "abcd"] == [b"v", None, b"v", b"v"] and evicted == [1]


def test_an_entry_is_over_when_its_time_is() -> None:
    one, clock, evicted = store()
    put(one, "a", ttl_s=10.0)
    clock.now = 9.9
    assert get(one, "a") == b"v" and len(list(one.entries())) == 1
    clock.now = 10.0
    assert list(one.entries()) == [] and get(one, "a") is None
    assert one.bytes == 0 and len(one) == 0 and evicted == [0]


def test_what_is_larger_than_all_room_is_not_kept() -> None:
    one, _, evicted = store(max_bytes=ENTRY_BYTES + 10)
    put(one, "a")
    put(one, "b", b"v" * 100)
    assert get(one, "a") == b"v" and get(one, "b") is None and evicted == [0]


def test_entries_are_found_by_org_and_model() -> None:
    one, _, _ = store(9)
    for key, org, model in (("a", "x", "m"), ("b", "y", "m"), ("c", "x", "n")):
        put(one, key, org=org, model=model)
    assert [kept.place for kept in one.entries("x")] == ["a", "c"]
    assert [kept.place for kept in one.entries(None, "m")] == ["a", "b"]
    one.remove("a")
    assert [kept.place for kept in one.entries("x", "m")] == []


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3000), st.booleans()), max_size=60))
def test_bytes_and_entries_are_bounded_and_counted(steps: list[tuple[str, int, bool]]) -> None:
    one, _, _ = store(4, 6000)
    for key, size, gone in steps:
        if gone:
            one.remove(key)
        else:
            put(one, key, b"v" * size)
            assert get(one, key) is not None or size + ENTRY_BYTES + 1 > 6000
        assert len(one) <= 4 and one.bytes <= 6000
        assert one.bytes == sum(len(kept.value) + len(kept.place) + ENTRY_BYTES for kept in one.entries())


@pytest.mark.parametrize("size", [100, 1000, 20_000])
def test_the_bytes_counted_are_the_bytes_taken(size: int) -> None:
    """Within a tenth, of what Python itself says that it has taken."""
    one, _, _ = store(10**6, 10**9)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2000):
            put(one, f"{number:064x}", bytes(size + number % 2), org=f"{number:032x}", model=f"model-{number}")
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert one.bytes == pytest.approx(taken, rel=0.1)
