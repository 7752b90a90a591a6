"""Whatever takes its time, a call ends in time, and so does a question with all its calls."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from nat_dynamo_plugin.admission.concurrency import ConcurrencyLimit
from nat_dynamo_plugin.admission.gate import Gate
from nat_dynamo_plugin.admission.slots import Slots
from nat_dynamo_plugin.http.call import Reply
from nat_dynamo_plugin.http.flow import Close, Enter, Failure, Flow, Send, Sleep
from nat_dynamo_plugin.layers import deadline
from nat_dynamo_plugin.layers.deadline import DeadlineLayer

WELL = Reply.made(200, b"{}")


class Clock:
    def __init__(self) -> None:
        self.now = monotonic()

    def __call__(self) -> float:
        return self.now


class Does:
    """Yields these operations, then sends."""

    def __init__(self, *operations: Any) -> None:
        self.operations = operations

    def flow(self, call: Any, send: Send) -> Flow:
        yield from self.operations
        return (yield from send(call))


class Both:
    """Two layers as one."""

    def __init__(self, outer: Any, inner: Any) -> None:
        self.outer, self.inner = outer, inner

    def flow(self, call: Any, send: Send) -> Flow:
        return self.outer.flow(call, lambda call: self.inner.flow(call, send))


def late(drive: Any, layer: Any, server: Any) -> str:
    call = drive.call()
    with pytest.raises(Failure) as caught:
        drive(layer, server, call)
    assert caught.value.kind == "deadline" and caught.value.original is None
    assert call.record.error_type == "deadline"
    return str(call.record.error)


@pytest.fixture(autouse=True)
def blocking_sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(deadline, "sleep", slept.append)
    return slept


def test_a_call_in_time_is_as_ever(drive: Any, scripted: Any) -> None:
    call = drive.call()
    assert drive(DeadlineLayer(60.0), scripted(WELL), call) is WELL
    assert 59 < call.left_s <= 60


def test_without_a_limit_nothing_is_bounded(drive: Any, scripted: Any) -> None:
    call = drive.call()
    assert drive(DeadlineLayer(None, 5.0), scripted(WELL), call) is WELL  # hints are off: no question
    assert call.deadline is None


def test_a_blocking_wait_between_attempts_is_cut(drive: Any, scripted: Any, blocking_sleeps: list[float]) -> None:
    if drive.asynchronous:
        pytest.skip("the event loop cuts it")
    server = scripted(WELL)
    assert "was over after" in late(drive, Both(DeadlineLayer(5.0), Does(Sleep(60.0))), server)
    assert not server.sent and 4 < blocking_sleeps[0] <= 5


def test_nothing_more_is_sent_when_the_time_is_over(drive: Any, scripted: Any) -> None:
    clock, server = Clock(), scripted(WELL)
    clock.now -= 10.0
    late(drive, DeadlineLayer(5.0, clock=clock), server)
    assert not server.sent


def test_a_reply_is_left_although_the_time_is_over(drive: Any, scripted: Any) -> None:
    clock, server, reply = Clock(), scripted(WELL), Reply.made(503, b"{}")
    clock.now -= 10.0
    late(drive, Both(DeadlineLayer(5.0, clock=clock), Does(Close(reply))), server)
    assert server.closed == [reply] and not server.sent


@pytest.mark.parametrize(("outer", "inner"), [(5.0, 100.0), (100.0, 5.0)])
def test_of_two_the_earlier_counts(drive: Any, scripted: Any, outer: float, inner: float) -> None:
    clock, server, reply = Clock(), scripted(WELL), Reply.made(503, b"{}")
    clock.now -= 10.0
    bounded = Both(DeadlineLayer(outer, clock=clock), DeadlineLayer(inner, clock=clock))
    late(drive, Both(bounded, Does(Close(reply))), server)
    assert server.closed == [reply] and not server.sent


@pytest.mark.parametrize("queue", ["gate", "slots"])
def test_a_wait_in_a_queue_is_cut(drive: Any, scripted: Any, queue: str) -> None:
    if queue == "gate":
        gate = Gate(1, model="m")
        first = gate.place("first", (), None, None)
        waits: Any = gate.place("second", (), None, None)
        first.__enter__()
    else:
        slots = Slots(ConcurrencyLimit(1), "http://server")
        slots.slot(0).try_enter()
        waits = slots.slot(1)
    server = scripted(WELL)
    late(drive, Both(DeadlineLayer(0.02), Does(Enter(waits))), server)
    assert not server.sent
    if queue == "slots":
        assert slots.waiting == 0


def test_calls_of_a_question_share_its_time(drive: Any, scripted: Any) -> None:
    clock = Clock()
    layer = DeadlineLayer(100.0, 30.0, clock)

    def asked(prefix: str) -> float:
        call = drive.call()
        call.turn = SimpleNamespace(identity=SimpleNamespace(prefix_id=prefix))
        drive(layer, scripted(WELL), call)
        assert call.deadline is not None
        return float(call.deadline - clock.now)

    assert asked("one") == pytest.approx(30)
    clock.now += 20
    assert asked("one") == pytest.approx(10) and asked("two") == pytest.approx(30)
    layer.question_ended("one")
    assert asked("one") == pytest.approx(30)


def test_questions_that_nobody_ends_are_forgotten(drive: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "MAX_QUESTIONS", 10)
    layer = DeadlineLayer(None, 30.0)
    for i in range(100):
        call = drive.call()
        call.turn = SimpleNamespace(identity=SimpleNamespace(prefix_id=str(i)))
        drive(layer, scripted(WELL), call)
    assert len(layer._began) == 10


async def test_a_cancelled_call_is_cancelled_and_not_late() -> None:
    from nat_dynamo_plugin.http.flow import chained, run_async

    from .conftest import Driven

    held = asyncio.Event()

    class Hangs:
        async def transmit(self, call: Any) -> Reply:
            await held.wait()
            return WELL

    call = Driven(True).call()
    task = asyncio.create_task(run_async(chained([DeadlineLayer(60.0)])(call), Hangs()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.record.error_type is None


def test_threads_begin_a_question_once() -> None:
    layer, began = DeadlineLayer(None, 30.0), set()

    def ask(now: float) -> None:
        began.add(layer._began_at("one", now))

    threads = [threading.Thread(target=ask, args=(float(i),)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(began) == 1
