"""Arrivals that follow a schedule, and the latency that counts from them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from nat_dynamo_plugin.evaluators.question_latency import QuestionLatencyConfig
from nat_dynamo_plugin.evaluators.records import MEASURED_ON_ARRIVAL, Question
from nat_dynamo_plugin.sweep import open_loop
from nat_dynamo_plugin.sweep.open_loop import OpenLoop, OpenLoopConfig
from nat_dynamo_plugin.telemetry.record import ARRIVAL_STEP_NAME


class Clock:
    """Time that passes only in `sleep`, for all sleepers at once."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(open_loop, "monotonic", lambda: clock.now)
    monkeypatch.setattr(open_loop, "time", lambda: clock.now)
    monkeypatch.setattr(open_loop, "asyncio", SimpleNamespace(sleep=clock.sleep))
    return clock


async def arrivals(clock: Clock, seed: int, n: int = 2000, rate: float = 4.0) -> list[float]:
    loop = OpenLoop(OpenLoopConfig(rate=rate, seed=seed))

    async def call_next(value: Any) -> Any:
        return value

    clock.slept.clear()
    for _ in range(n):
        await loop.function_middleware_invoke(1, call_next=call_next, context=SimpleNamespace())  # type: ignore[arg-type]
    return list(clock.slept)


async def test_the_rate_is_kept_and_the_seed_decides(clock: Clock) -> None:
    first = await arrivals(clock, 1)
    # The first question comes at once, so one less has to wait.
    assert len(first) == 1999
    assert 1999 / first[-1] == pytest.approx(4.0, rel=0.1)
    assert first == sorted(first)
    assert await arrivals(clock, 1) == first
    assert await arrivals(clock, 2) != first


async def test_a_question_that_comes_late_does_not_wait_again(clock: Clock) -> None:
    loop = OpenLoop(OpenLoopConfig(rate=1.0, seed=1))
    await loop._arrive()
    clock.now += 1000  # the next ones had to wait for a free slot
    await asyncio.gather(*(loop._arrive() for _ in range(3)))
    assert clock.slept == []


async def test_a_question_that_comes_late_has_arrived_when_it_was_due(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a system that falls behind would be asked less, and the wait for it would not count."""
    arrived: list[float] = []
    monkeypatch.setattr(open_loop, "_leave_trace", arrived.append)
    monkeypatch.setattr(open_loop, "Context", SimpleNamespace(get=lambda: SimpleNamespace(workflow_run_id="run")))
    in_time = OpenLoop(OpenLoopConfig(rate=1.0, seed=1))
    for _ in range(5):
        await in_time._arrive()
    due, arrived[:] = list(arrived), []
    assert due == [100.0, *(100.0 + wait for wait in clock.slept)] == sorted(set(due))
    clock.slept.clear()
    late = OpenLoop(OpenLoopConfig(rate=1.0, seed=1))
    for number in range(5):
        if number == 2:
            clock.now = (due[3] + due[4]) / 2  # two have to come late, the last one is in time again
        await late._arrive()
    assert arrived == pytest.approx(due)
    assert clock.slept == pytest.approx([due[1] - 100.0, due[4] - clock.now])


def step(event: str, at: float, name: str = "workflow", uuid: str = "w") -> dict[str, Any]:
    return {"payload": {"event_type": event, "event_timestamp": at, "name": name, "UUID": uuid}}


@pytest.mark.parametrize("arrived", [8.0, 13.0])
def test_latency_counts_from_the_arrival(arrived: float) -> None:
    steps = [
        step("WORKFLOW_START", 10.0),
        step("CUSTOM_START", arrived, ARRIVAL_STEP_NAME, "a"),
        step("CUSTOM_END", arrived, ARRIVAL_STEP_NAME, "a"),
        step("LLM_END", 19.0, "llm", "l"),
        step("WORKFLOW_END", 20.0),
    ]
    question = Question.from_trajectory("q", steps)
    assert question.measured_on == MEASURED_ON_ARRIVAL
    (sample,) = QuestionLatencyConfig().metric().samples(question)
    assert sample.value == 20.0 - arrived
