from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextvars import copy_context

import pytest
from nat.builder.context import ContextState

from nat_dynamo_plugin.admission.gate import Gate
from nat_dynamo_plugin.layers.admission import AdmissionLayer
from nat_dynamo_plugin.layers.learning import LearningLayer
from nat_dynamo_plugin.learning.learner import WorkLearner
from nat_dynamo_plugin.nat.middleware import DynamoPrefixScope, DynamoPrefixScopeConfig
from nat_dynamo_plugin.plan.serving import HALF_PRIORITY_TOKENS
from nat_dynamo_plugin.question.hints import DynamoHints, PrefixHints
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext

from .layered import FakeCall, LayeredClient, turns

STATE = ContextState.get()


def gated(limit: int = 1, hints: PrefixHints | None = None) -> tuple[LayeredClient, Gate]:
    gate = Gate(limit)
    return LayeredClient(admission=AdmissionLayer(gate), hints=hints), gate


async def ask(client: LayeredClient, name: str) -> None:
    with DynamoPrefixContext.scope(name):
        await client.ask()


async def test_the_second_question_waits_for_the_first_to_end() -> None:
    client, _ = gated()
    outside = copy_context()
    client.hold = asyncio.Event()
    with DynamoPrefixContext.scope("a"):
        first = asyncio.create_task(client.ask())
        await turns()
        task = asyncio.create_task(ask(client, "b"), context=outside)
        await turns()
        assert client.prefixes == ["a"]
        client.hold.set()
        await first
        await turns()
        assert client.prefixes == ["a"], "the question is not over with its call"
    await task
    assert client.prefixes == ["a", "b"]
    waited = client.records[-1].gate_wait_ms
    assert waited is not None and waited > 0
    assert client.records[0].gate_wait_ms == 0, "there is a gate, and it did not have to wait"


async def test_nothing_is_warmed_while_questions_wait() -> None:
    client, _ = gated(hints=PrefixHints(total_requests=10, iat=1000))
    outside = copy_context()
    with DynamoPrefixContext.scope("a"):
        await client.ask()
        assert client.plans[-1].speculative_prefill
        task = asyncio.create_task(ask(client, "b"), context=outside)
        await turns()
        await client.ask()
        assert client.prefixes == ["a", "a"]
        assert not client.plans[-1].speculative_prefill
    await task


async def test_a_question_in_a_question_does_not_wait() -> None:
    client, _ = gated()
    client.hold = asyncio.Event()
    with DynamoPrefixContext.scope("outer"):
        own = asyncio.create_task(client.ask())
        await turns()
        tasks = [asyncio.create_task(ask(client, f"inner-{n}")) for n in range(5)]
        await turns()
        assert len(client.prefixes) == 6
        client.hold.set()
        await asyncio.gather(own, *tasks)


async def test_an_explicit_question_in_a_workflow_run_under_way_does_not_wait() -> None:
    client, _ = gated()
    client.hold = asyncio.Event()
    token = STATE.workflow_run_id.set("run-2")
    try:
        own = asyncio.create_task(client.ask())
        await turns()
        with DynamoPrefixContext.scope("inside"):
            other = asyncio.create_task(client.ask())
        await turns()
        assert client.prefixes == ["run-2", "inside"]
        client.hold.set()
        await asyncio.gather(own, other)
    finally:
        STATE.workflow_run_id.reset(token)


async def test_a_cancelled_call_leaves_the_gate() -> None:
    client, gate = gated()
    client.hold = asyncio.Event()
    first, second = asyncio.create_task(ask(client, "a")), asyncio.create_task(ask(client, "b"))
    await turns()
    assert (gate.under_way, gate.waiting) == (1, 1)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert (gate.under_way, gate.waiting) == (1, 0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert (gate.under_way, gate.waiting) == (0, 0)


async def test_a_call_that_failed_is_over() -> None:
    client, gate = gated()
    client.fails = ConnectionError()
    with DynamoPrefixContext.scope("a"):
        with pytest.raises(ConnectionError):
            await client.ask()
        (question,) = gate._queue._in.values()
        assert question.calls == 0


def test_threads_wait_too() -> None:
    client, gate = gated()

    def other() -> None:
        with DynamoPrefixContext.scope("b"):
            client.ask_sync()

    with DynamoPrefixContext.scope("a"):
        client.ask_sync()
        thread = threading.Thread(target=other)
        thread.start()
        while not gate.waiting:
            threading.Event().wait(0.001)
        assert client.prefixes == ["a"]
    thread.join(60)
    assert not thread.is_alive()
    assert client.prefixes == ["a", "b"]


async def test_a_blocking_call_in_an_event_loop_does_not_stop_it() -> None:
    client, gate = gated()
    client.hold = asyncio.Event()
    first = asyncio.create_task(ask(client, "a"))
    await turns()
    with DynamoPrefixContext.scope("b"):
        client.ask_sync()
    assert client.prefixes == ["a", "b"]
    assert gate.under_way == 1
    client.hold.set()
    await first


async def test_a_streaming_middleware_ends_its_question_with_its_stream() -> None:
    client, gate = gated()

    async def steps(_: str) -> AsyncIterator[int]:
        for number in range(3):
            await client.ask()
            yield number

    scope = DynamoPrefixScope(DynamoPrefixScopeConfig())
    stream = scope.function_middleware_stream("question", call_next=steps, context=None)  # type: ignore[arg-type]
    seen = [(step, gate.under_way) async for step in stream]
    assert seen == [(0, 1), (1, 1), (2, 1)]
    assert gate.under_way == 0


async def test_the_end_of_a_question_ends_it_for_both_layers() -> None:
    gate = Gate(1)
    client = LayeredClient(LearningLayer(WorkLearner()), AdmissionLayer(gate))
    token = STATE.workflow_run_id.set("run-1")
    try:
        await client.ask()
        await client.ask()
        assert gate.under_way == 1
        DynamoPrefixContext.end("run-1")
    finally:
        STATE.workflow_run_id.reset(token)
    assert gate.under_way == 0
    assert client.learning is not None
    assert [row["calls_mean"] for row in client.learning.learner.snapshot()] == [2.0]


async def test_the_least_work_goes_first() -> None:
    client, _ = gated()
    outside = copy_context()

    async def known(name: str, calls: int) -> None:
        with DynamoHints.scope(total_requests=calls):
            await ask(client, name)

    with DynamoPrefixContext.scope("first"):
        await client.ask()
        tasks = [
            asyncio.create_task(known(name, calls), context=outside.copy())
            for name, calls in (("long", 40), ("short", 1))
        ]
        await turns()
    await asyncio.gather(*tasks)
    assert client.prefixes == ["first", "short", "long"]


@pytest.mark.parametrize(
    ("total", "osl", "work"),
    [(None, None, None), (1, None, HALF_PRIORITY_TOKENS), (3, 100, 300), (3, None, 3 * HALF_PRIORITY_TOKENS)],
)
def test_the_work_of_a_question_is_that_of_all_its_calls(
    total: int | None, osl: int | None, work: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, gate = gated()
    seen: list[tuple[float | None, bytes | None]] = []
    place = gate.place

    def look(prefix_id: str, ancestors: tuple[str, ...], work_tokens: float | None, body: bytes | None) -> object:
        seen.append((work_tokens, body))
        return place(prefix_id, ancestors, work_tokens, body)

    monkeypatch.setattr(gate, "place", look)
    with DynamoPrefixContext.scope("q"), DynamoHints.scope(total_requests=total, osl=osl):
        client.ask_sync()
    assert seen == [(work, None)]


class Probe:
    def __init__(self) -> None:
        self.urls: list[str] = []

    def called(self, url: str) -> None:
        self.urls.append(url)


def test_a_call_of_nobody_passes_and_the_probe_hears_of_it() -> None:
    gate, probe, call = Gate(1), Probe(), FakeCall(None)

    def send(call: object) -> object:
        return "reply"
        yield

    flow = AdmissionLayer(gate, probe).flow(call, send)  # type: ignore[arg-type]
    with pytest.raises(StopIteration) as stop:
        next(flow)
    call.finish()
    assert stop.value.value == "reply"
    assert probe.urls == [call.url]
    assert gate.under_way == 0
