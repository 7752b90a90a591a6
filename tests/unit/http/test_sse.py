from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.http.sse import MAX_EVENT_BYTES, EventCutter


def events(*chunks: bytes) -> list[tuple[bytes, bytes]]:
    cutter = EventCutter()
    return [event for chunk in chunks for event in cutter.feed(chunk)] + cutter.end()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"data: a\n\ndata:b\n\n", [(b"", b"a"), (b"", b"b")]),
        (b"data:  a\n\n", [(b"", b" a")]),
        (b"event: x\ndata: a\nid: 3\nretry: 4\n\ndata: b\n\n", [(b"x", b"a"), (b"", b"b")]),
        (b"data: a\r\ndata: b\r\rdata: c\n\r\n", [(b"", b"a\nb"), (b"", b"c")]),
        (b": comment\n\n\n\n:\n", []),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"", b"a")]),
        (b"data: the end is missing", [(b"", b"the end is missing")]),
        (b"event: x\n\n", []),
        (b"event: error\n\n", [(b"error", b"")]),
        (b"database: 3\ndata\n\n", []),
    ],
)
def test_events(text: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    assert events(text) == expected
    assert events(*[text[i : i + 1] for i in range(len(text))]) == expected


@given(
    st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b"data:y", b":c", b"event: e", b"\xef\xbb\xbf", b""])),
    st.lists(st.integers(min_value=0, max_value=100)),
)
def test_any_chunking_gives_the_same_events(parts: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(parts)
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    assert events(*[whole[a:b] for a, b in pairwise(edges)]) == events(whole) == events(*parts)


@pytest.mark.parametrize("size", [MAX_EVENT_BYTES, MAX_EVENT_BYTES + 1])
@pytest.mark.parametrize("step", [1000, 2**24])
@pytest.mark.parametrize("lines", [1, 3])
def test_an_event_that_is_too_large_is_left_out_and_the_next_is_not(size: int, step: int, lines: int) -> None:
    part = size // lines
    sizes = [part] * (lines - 1) + [size - part * (lines - 1)]
    whole = b"".join(b"data: " + b"x" * (n - 6) + b"\n" for n in sizes) + b"\ndata: next\n\n"
    cutter = EventCutter()
    got = [event for i in range(0, len(whole), step) for event in cutter.feed(whole[i : i + step])]
    assert [data[:4] for _, data in got] == ([b"xxxx", b"next"] if size <= MAX_EVENT_BYTES else [b"next"])
    assert cutter.lost is (size > MAX_EVENT_BYTES)


def test_what_follows_a_line_that_is_too_long_is_left_out_with_it() -> None:
    assert events(b"data: " + b"x" * MAX_EVENT_BYTES, b"\n", b"data: tail\n", b"\ndata: next\n\n") == [(b"", b"next")]


@pytest.mark.parametrize("begun", [b"", b"data: a", b"data: a\n", b"event: x\n", b"data: a\n\r", b": c"])
def test_is_not_idle_within_an_event(begun: bytes) -> None:
    cutter = EventCutter()
    cutter.feed(begun)
    assert not cutter.idle
    cutter.feed(b"\n\ndata: b\n\n")
    assert cutter.idle


def test_an_error_events_comment_is_its_data() -> None:
    said = EventCutter().feed(b": before\n\nevent: error\n: the boiler\n: is cold\n\nevent: error\ndata: x\n: y\n\n")
    assert said == [(b"error", b"the boiler\nis cold"), (b"error", b"x")]
