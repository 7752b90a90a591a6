"""What is drawn of a run."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from markupsafe import Markup

from nat_dynamo_plugin.cli.report.figures import Worker
from nat_dynamo_plugin.cli.report.pictures import load, strip, timeline, tones
from nat_dynamo_plugin.cli.report.run import Asked, Tool

from .making import sent

NUMBERS = {7: 1, 8: 2}
TONES = {7: 1, 8: 2}


def read(drawn: Markup | None) -> ElementTree.Element:
    return ElementTree.fromstring(str(drawn))


def boxes(root: ElementTree.Element, name: str) -> list[tuple[float, ...]]:
    """x, y, width and height of all boxes of a class."""
    number = r"(-?[\d.]+)"
    box = re.compile(rf"M{number} {number}h{number}v{number}h")
    paths = [path.get("d") or "" for path in root.iter("path") if name in (path.get("class") or "").split()]
    return [tuple(map(float, found)) for path in paths for found in box.findall(path)]


def test_a_call_is_drawn_by_its_phases() -> None:
    call = sent(
        1, started_at=102.0, client_total_ms=4000.0, gate_wait_ms=500.0, server_ttft_ms=1000.0, server_total_ms=2500.0,
        prompt_tokens=100, cached_tokens=75,
    )  # fmt: skip
    asked = Asked(id="q", started_at=100.0, ended_at=110.0, calls=(call,), tools=(Tool("ls", 107.0, 108.0),))
    root = read(timeline(asked, NUMBERS))
    assert boxes(root, "wait") == [(200, 1, 50, 13)]
    (new,), (cached,) = boxes(root, "new"), boxes(root, "cached")
    assert (new[0], new[2], cached[0], cached[2]) == (250, 100, 250, 100)
    assert (new[3], cached[3]) == (3.2, 9.8)  # a quarter and three quarters of 13, to a digit
    assert boxes(root, "decode") == [(350, 1, 150, 13)]
    assert boxes(root, "way")[0][::2] == (500, 100)
    assert boxes(root, "tool")[0][::2] == (700, 100)
    assert [one.text for one in root.findall("g/title")] == [
        "call 1, worker 1, 100 tokens (75 cached): waited 500 ms, prefill 1.00 s, answer 1.50 s, way and client 1.00 s"
    ]


def test_a_streams_times_are_its_clients() -> None:
    call = sent(
        1, started_at=0.5, client_total_ms=400.0, client_ttft_ms=100.0, server_ttft_ms=50.0, server_total_ms=90.0
    )
    root = read(timeline(Asked(id="q", started_at=0.5, ended_at=1.5, calls=(call,)), NUMBERS))
    assert boxes(root, "new")[0][::2] == (0, 100)
    assert boxes(root, "decode")[0][::2] == (100, 300)
    assert boxes(root, "way") == [] and boxes(root, "wait") == [] and boxes(root, "cached") == []


def test_chains_have_lanes_and_failures_are_seen() -> None:
    calls = (sent(1, started_at=0.5), sent(2, started_at=0.5, session_id="b", error="x", kind="overloaded"))
    root = read(timeline(Asked(id="q", started_at=0.5, ended_at=1.5, calls=calls), NUMBERS))
    assert root.get("height") == "32"
    assert boxes(root, "decode")[0][1] == 1 and boxes(root, "failed") == [(0, 17, 100, 13)]
    assert root.findall("g/title")[1].text == "call 2 failed: overloaded, after 100 ms"


def test_what_nobody_timed_has_no_line() -> None:
    assert timeline(Asked(id="q", calls=(sent(1),)), NUMBERS) is None
    assert timeline(Asked(id="q", started_at=1.0, ended_at=2.0), NUMBERS) is None


def test_a_strip_has_a_cell_for_each_call_in_its_workers_colour() -> None:
    calls = (sent(1), sent(2), sent(3, worker_id=8), sent(4, worker_id=None), sent(5, error="x"))
    root = read(strip(Asked(id="q", calls=calls), NUMBERS, TONES))
    assert [box[1] for box in boxes(root, "s1")] == [0, 6]
    assert [box[1] for box in boxes(root, "s2")] == [12]
    assert [box[1] for box in boxes(root, "none")] == [18] and [box[1] for box in boxes(root, "failed")] == [24]
    assert [box[1] for box in boxes(root, "moved")] == [12, 24]
    assert root.findtext("title") == "q: workers 1 1 2 - 1"


def test_a_load_is_as_high_as_its_share_of_the_most() -> None:
    root = read(load(Worker(id=7, number=1, calls=3, load=[0.0, 2.0, 1.0]), 2.0, 1))
    assert next(root.iter("path")).get("d") == "M0 26V26h1V0h1V13h1V26z"
    assert root.findtext("title") == "worker 1: 3 calls, at most 2.0 at once"


def test_the_busiest_workers_have_colours_of_their_own() -> None:
    few = [Worker(id=n, number=n, calls=1) for n in range(1, 9)]
    assert tones(few) == {n: n for n in range(1, 9)}
    many = [Worker(id=n, number=n, calls=n) for n in range(1, 11)]
    assert tones(many) == {1: 8, 2: 8, 3: 8} | {n: n - 3 for n in range(4, 11)}
