"""A server that is down is left alone: its calls wait or fail at once, and go on when it is back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.http.call import Reply
from nat_dynamo_plugin.http.flow import Failure
from nat_dynamo_plugin.layers.breaker import BreakerLayer, Circuit
from nat_dynamo_plugin.outages.breaker import BreakerSettings, Ticket

WELL = Reply.made(200, b"{}")
DOWN = Failure("connect", httpx.ConnectError("connection refused"))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def layer(clock: Clock, max_wait_s: float = 0.0) -> BreakerLayer:
    return BreakerLayer(Circuit(BreakerSettings(min_calls=3), "http://server", clock), max_wait_s)


def take_down(drive: Any, scripted: Any, one: BreakerLayer) -> None:
    for _ in range(3):
        with pytest.raises(Failure):
            drive(one, scripted(DOWN))


def test_open_it_fails_at_once_and_says_why_and_when_it_tries_next(drive: Any, scripted: Any) -> None:
    one, server, call = layer(Clock()), scripted(WELL), drive.call()
    take_down(drive, scripted, one)
    reply = drive(one, server, call)
    assert reply.status == 503 and not server.sent and not drive.slept
    message = json.loads(reply.content)["error"]["message"]
    assert "http://server" in message and "connection refused" in message and "in 2.0 s" in message
    assert reply.headers.get("x-should-retry") == "false"
    assert call.record.error_type == "circuit_open" and call.record.error == message


def test_it_waits_until_the_server_is_back(drive: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    one, server, call = layer(clock, 60.0), scripted(WELL), drive.call()
    take_down(drive, scripted, one)
    _passes(drive, clock, monkeypatch)
    assert drive(one, server, call).status == 200
    assert drive.slept == [2.0] and call.record.outage_wait_ms == 2000.0
    assert isinstance(one.circuit.admit(), Ticket)


def test_its_wait_has_an_end(drive: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    one = layer(clock, 5.0)
    take_down(drive, scripted, one)
    one.circuit.admit()
    clock.now = 2.0
    probe = one.circuit.admit()  # somebody else's, which never ends
    assert isinstance(probe, Ticket)
    _passes(drive, clock, monkeypatch)
    assert drive(one, scripted(WELL)).status == 503
    assert sum(drive.slept) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("status", "text", "opens"),
    [
        *((500, "", True), (503, "", True), (404, "", True)),
        *((404, "no such model", False), (400, "", False), (429, "", False), (529, "", False), (408, "", False)),
        (503, "All workers are busy, please retry later", False),
    ],
)
def test_what_counts_as_a_failure(drive: Any, scripted: Any, status: int, text: str, opens: bool) -> None:
    one = layer(Clock())
    for _ in range(3):
        call = drive.call()
        call.record.error = text
        drive(one, scripted(Reply.made(status, b"{}")), call)
    assert isinstance(one.circuit.admit(), Ticket) is not opens


@pytest.mark.parametrize(("kind", "opens"), [("read", True), ("read timeout", True), ("protocol", True)])
@pytest.mark.parametrize("ours", ["local", "pool timeout", "deadline"])
def test_which_failures_are_the_servers(drive: Any, scripted: Any, kind: str, opens: bool, ours: str) -> None:
    one = layer(Clock())
    for each in (ours, ours, ours, ours):
        with pytest.raises(Failure):
            drive(one, scripted(Failure(each, httpx.ReadError("x"))))
    assert isinstance(one.circuit.admit(), Ticket)
    for _ in range(3):
        with pytest.raises(Failure):
            drive(one, scripted(Failure(kind, httpx.ReadError("x"))))
    assert isinstance(one.circuit.admit(), Ticket) is not opens


def test_a_cancelled_call_says_nothing_and_a_cancelled_probe_lets_another_through(drive: Any, scripted: Any) -> None:
    clock = Clock()
    one = layer(clock)
    take_down(drive, scripted, one)
    clock.now = 2.0

    def cancelled(_: Any) -> Reply:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        drive(one, scripted(cancelled))
    assert drive(one, scripted(WELL)).status == 200


def test_a_probe_that_is_refused_for_overload_finds_the_server_back(drive: Any, scripted: Any) -> None:
    clock = Clock()
    one = layer(clock)
    take_down(drive, scripted, one)
    clock.now = 2.0
    assert drive(one, scripted(Reply.made(529, b"{}"))).status == 529
    assert not one.circuit.is_open


def test_the_wait_is_of_the_call_however_often_it_is_made(
    drive: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    one, call = layer(clock, max_wait_s=6.0), drive.call()
    take_down(drive, scripted, one)
    _passes(drive, clock, monkeypatch)
    server = scripted(DOWN, DOWN, DOWN)
    with pytest.raises(Failure):
        drive(one, server, call)
    while call.record.outage_wait_ms < 6000.0:
        try:
            reply = drive(one, server, call)
        except Failure:
            continue
        assert reply.status == 503
    assert call.record.outage_wait_ms == pytest.approx(6000.0)


def test_a_stream_that_breaks_after_its_headers_is_a_failure(drive: Any, scripted: Any) -> None:
    one = layer(Clock())
    for i in range(3):
        server, call = scripted(), drive.call()
        server.unread(200, b"", {"content-type": "text/event-stream"})
        drive(one, server, call)
        call.fail(httpx.ReadError("cut"))
        call.finish()
        assert isinstance(one.circuit.admit(), Ticket) is (i < 2), i


@pytest.mark.parametrize("kind", ["left", "deadline", "too_long"])
def test_a_stream_that_its_reader_leaves_is_none(drive: Any, scripted: Any, kind: str) -> None:
    one = layer(Clock())
    for _ in range(4):
        server, call = scripted(), drive.call()
        server.unread(200, b"", {"content-type": "text/event-stream"})
        drive(one, server, call)
        call.record.error, call.record.error_type = kind, kind
        call.finish()
    assert isinstance(one.circuit.admit(), Ticket)


def _passes(drive: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the clock go on while the layer sleeps."""
    append = drive.slept.append

    class Kept(list[float]):
        def append(self, seconds: float) -> None:
            clock.now += seconds
            append(seconds)

    kept = Kept()

    async def sleep(seconds: float) -> None:
        kept.append(seconds)

    monkeypatch.setattr("nat_dynamo_plugin.http.flow.time.sleep", kept.append)
    monkeypatch.setattr("nat_dynamo_plugin.http.flow.anyio.sleep", sleep)
