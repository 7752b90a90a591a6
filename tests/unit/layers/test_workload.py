from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import httpx
import pytest
from nat.builder.context import ContextState
from nat.utils.reactive.subject import Subject
from pydantic import ValidationError

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.http.transport import DynamoTransport
from nat_dynamo_plugin.nat.middleware import DynamoPrefixScope, DynamoPrefixScopeConfig
from nat_dynamo_plugin.question.hints import DynamoHints
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
from nat_dynamo_plugin.service import asking
from nat_dynamo_plugin.telemetry.record import CallRecord

URL = "http://server/v1/chat/completions"
STATE = ContextState.get()


class Service:
    """A client of ours on a server in memory, whose answers wait until `answers` is set."""

    def __init__(self, **fields: Any) -> None:
        self.config = DynamoModelConfig(model_name="m", base_url="http://server/v1", **fields)
        self.asking = asking(self.config)
        self.records: list[CallRecord] = []
        self.sent: list[dict[str, Any]] = []
        self.prefixes: list[str] = []
        self.hold: asyncio.Event | None = None

        async def handle_async(request: httpx.Request) -> httpx.Response:
            response = handle(request)
            if self.hold is not None:
                await self.hold.wait()
            return response

        def handle(request: httpx.Request) -> httpx.Response:
            self.sent.append(json.loads(request.read()))
            self.prefixes.append(request.headers["x-dynamo-session-id"])
            usage = {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}
            return httpx.Response(200, json={"model": "m", "choices": [], "usage": usage})

        self.asynchronous = self._client(httpx.AsyncClient, httpx.MockTransport(handle_async))
        self.sync = self._client(httpx.Client, httpx.MockTransport(handle))

    def _client(self, make: Callable[..., Any], transport: httpx.MockTransport) -> Any:
        planner, speaker, workload = self.asking
        return make(
            transport=DynamoTransport(
                transport, planner, speaker=speaker, workload=workload, emit_record=self.records.append
            )
        )

    async def ask(self) -> None:
        await self.asynchronous.post(URL, json={"messages": []})

    def ask_sync(self) -> None:
        self.sync.post(URL, json={"messages": []})

    def hints(self) -> dict[str, Any]:
        return self.sent[-1].get("nvext", {}).get("agent_hints", {})


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


AUTO = {"prefix_total_requests": "auto", "prefix_osl": "auto", "prefix_iat": "auto"}


class TestLearning:
    async def test_a_priority_is_sent_once_something_is_known(self) -> None:
        service = Service(**AUTO)
        for number in range(30):
            with DynamoPrefixContext.scope(f"q{number}"):
                for _ in range(3):
                    await service.ask()
                if number == 0:
                    assert "priority" not in service.hints()
        priorities = [body["nvext"]["agent_hints"]["priority"] for body in service.sent[-3:]]
        assert priorities == sorted(priorities)
        assert priorities[0] < priorities[-1]
        assert service.hints()["osl"] == 40
        assert service.records[-1].calls_to_come == pytest.approx(0.0, abs=0.2)

    async def test_a_learned_total_of_one_keeps_the_session(self) -> None:
        service = Service(**AUTO)
        for number in range(20):
            with DynamoPrefixContext.scope(f"q{number}"):
                await service.ask()
        assert service.prefixes == [f"q{number}" for number in range(20)]

    async def test_a_scope_knows_better(self) -> None:
        service = Service(**AUTO)
        for number in range(10):
            with DynamoPrefixContext.scope(f"q{number}"):
                await service.ask()
        with DynamoPrefixContext.scope("known"), DynamoHints.scope(total_requests=30, osl=1000):
            await service.ask()
        assert service.hints()["priority"] < 10

    async def test_nothing_is_learned_unless_asked_for(self) -> None:
        service = Service()
        for number in range(20):
            with DynamoPrefixContext.scope(f"q{number}"):
                await service.ask()
        assert service.asking.workload is None
        assert "priority" not in service.hints()

    async def test_kinds_lead_to_different_priorities(self) -> None:
        service = Service(**AUTO)
        first: dict[str, int] = {}
        for number in range(60):
            kind, calls = ("short", 2) if number % 2 else ("long", 9)
            with DynamoPrefixContext.scope(f"q{number}"), DynamoHints.scope(kind=kind):
                await service.ask()
                first[kind] = service.hints().get("priority", 0)
                for _ in range(calls - 1):
                    await service.ask()
        assert first["short"] > first["long"]

    async def test_what_was_learned_is_kept_in_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "learned.json"
        service = Service(**AUTO, prefix_learned=file)
        for number in range(10):
            with DynamoPrefixContext.scope(f"q{number}"):
                await service.ask()
                await service.ask()
        assert service.asking.workload is not None
        service.asking.workload.close()
        again = Service(**AUTO, prefix_learned=file)
        with DynamoPrefixContext.scope("new"):
            await again.ask()
        assert "priority" in again.hints()

    def test_a_file_of_something_else_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "learned.json"
        file.write_text("{}")
        with pytest.raises(ValueError, match=r"prefix_learned='.*learned\.json'"):
            Service(**AUTO, prefix_learned=file)

    async def test_the_end_of_a_workflow_run_ends_the_question(self) -> None:
        service = Service(**AUTO, max_active_prefixes=1)
        assert service.asking.workload is not None and service.asking.workload.gate is not None
        stream: Subject[Any] = Subject()
        tokens = [STATE.workflow_run_id.set("run-1"), STATE.event_stream.set(stream)]
        try:
            await service.ask()
            await service.ask()
            assert service.asking.workload.gate.under_way == 1
            stream.on_complete()
        finally:
            STATE.workflow_run_id.reset(tokens[0])
            STATE.event_stream.reset(tokens[1])
        assert service.asking.workload.gate.under_way == 0
        learner = service.asking.workload.learner
        assert learner is not None
        assert [row["calls_mean"] for row in learner.snapshot()] == [2.0]


class TestGate:
    async def test_the_second_question_waits_for_the_first_to_end(self) -> None:
        service = Service(max_active_prefixes=1)
        second = asyncio.Event()

        async def other() -> None:
            with DynamoPrefixContext.scope("b"):
                await service.ask()
            second.set()

        outside = copy_context()
        service.hold = asyncio.Event()
        with DynamoPrefixContext.scope("a"):
            first = asyncio.create_task(service.ask())
            await turns()
            task = asyncio.create_task(other(), context=outside)
            await turns()
            assert service.prefixes == ["a"]
            service.hold.set()
            await first
        await task
        assert service.prefixes == ["a", "b"]
        assert service.records[-1].gate_wait_ms is not None
        assert service.records[0].gate_wait_ms is None

    async def test_nothing_is_warmed_while_questions_wait(self) -> None:
        service = Service(max_active_prefixes=1, prefix_total_requests=10, prefix_iat=1000)

        async def other() -> None:
            with DynamoPrefixContext.scope("b"):
                await service.ask()

        outside = copy_context()
        with DynamoPrefixContext.scope("a"):
            await service.ask()
            assert service.hints()["speculative_prefill"] is True
            service.hold = asyncio.Event()
            first = asyncio.create_task(service.ask())
            await turns()
            task = asyncio.create_task(other(), context=outside)
            await turns()
            second = asyncio.create_task(service.ask())
            await turns()
            assert service.prefixes == ["a", "a", "a"]
            assert "speculative_prefill" not in service.hints()
            service.hold.set()
            await asyncio.gather(first, second)
        await task

    async def test_a_question_in_a_question_does_not_wait(self) -> None:
        service = Service(max_active_prefixes=1)

        async def inner(name: str) -> None:
            with DynamoPrefixContext.scope(name):
                await service.ask()

        service.hold = asyncio.Event()
        with DynamoPrefixContext.scope("outer"):
            own = asyncio.create_task(service.ask())
            await turns()
            tasks = [asyncio.create_task(inner(f"inner-{n}")) for n in range(5)]
            await turns()
            assert len(service.prefixes) == 6
            service.hold.set()
            await asyncio.gather(own, *tasks)

    async def test_an_explicit_question_in_a_workflow_run_under_way_does_not_wait(self) -> None:
        service = Service(max_active_prefixes=1)
        service.hold = asyncio.Event()
        token = STATE.workflow_run_id.set("run-2")
        try:
            own = asyncio.create_task(service.ask())
            await turns()
            with DynamoPrefixContext.scope("inside"):
                other = asyncio.create_task(service.ask())
            await turns()
            assert service.prefixes == ["run-2", "inside"]
            service.hold.set()
            await asyncio.gather(own, other)
        finally:
            STATE.workflow_run_id.reset(token)

    async def test_a_cancelled_call_leaves_the_gate(self) -> None:
        service = Service(max_active_prefixes=1)
        assert service.asking.workload is not None and service.asking.workload.gate is not None
        gate = service.asking.workload.gate
        service.hold = asyncio.Event()

        async def ask(name: str) -> None:
            with DynamoPrefixContext.scope(name):
                await service.ask()

        first, second = asyncio.create_task(ask("a")), asyncio.create_task(ask("b"))
        await turns()
        assert (gate.under_way, gate.waiting) == (1, 1)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert (gate.under_way, gate.waiting) == (1, 0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert (gate.under_way, gate.waiting) == (0, 0)

    def test_threads_wait_too(self) -> None:
        service = Service(max_active_prefixes=1)
        done = threading.Event()

        def other() -> None:
            with DynamoPrefixContext.scope("b"):
                service.ask_sync()
            done.set()

        with DynamoPrefixContext.scope("a"):
            service.ask_sync()
            thread = threading.Thread(target=other)
            thread.start()
        assert done.wait(30)
        thread.join()
        assert service.prefixes == ["a", "b"]

    async def test_a_streaming_middleware_ends_its_question_with_its_stream(self) -> None:
        service = Service(max_active_prefixes=1)
        assert service.asking.workload is not None and service.asking.workload.gate is not None
        gate = service.asking.workload.gate

        async def steps(_: str) -> AsyncIterator[int]:
            for number in range(3):
                await service.ask()
                yield number

        scope = DynamoPrefixScope(DynamoPrefixScopeConfig())
        stream = scope.function_middleware_stream("question", call_next=steps, context=None)  # type: ignore[arg-type]
        seen = [(step, gate.under_way) async for step in stream]
        assert seen == [(0, 1), (1, 1), (2, 1)]
        assert gate.under_way == 0


class TestConfig:
    @pytest.mark.parametrize("value", [0, -1, 1.5, "many", True, []])
    def test_bad_limits_are_refused(self, value: object) -> None:
        with pytest.raises(ValidationError, match=r"max_active_prefixes=.* use a whole number of 1 or more, or auto"):
            DynamoModelConfig(model_name="m", max_active_prefixes=value)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("value", "near"), [(0, 1), (51, 50)])
    def test_bad_totals_name_the_nearest(self, value: int, near: int) -> None:
        with pytest.raises(ValidationError, match=rf"prefix_total_requests={value}.*from 1 to 50.*nearest is {near}"):
            DynamoModelConfig(model_name="m", prefix_total_requests=value)

    @pytest.mark.parametrize("value", ["auto", "AUTO", " auto "])
    def test_auto(self, value: str) -> None:
        config = DynamoModelConfig(
            model_name="m", prefix_total_requests=value, prefix_osl=value, prefix_iat=value, max_active_prefixes=value
        )
        assert config.max_active_prefixes == config.prefix_total_requests == config.prefix_osl == "auto"
        hints = config.prefix_hints
        assert (hints.total_requests, hints.osl, hints.iat) == (None, None, None)
        assert DynamoModelConfig(**config.model_dump()) == config

    def test_the_names_are_ours(self) -> None:
        ours = DynamoModelConfig.get_dynamo_field_names()
        assert {"max_active_prefixes", "prefix_learned", "prefix_idle", "prefix_max_wait"} <= ours

    @pytest.mark.parametrize("field", ["prefix_idle", "prefix_max_wait"])
    @pytest.mark.parametrize("value", [0, -1, "nan", "inf"])
    def test_times_are_positive(self, field: str, value: object) -> None:
        with pytest.raises(ValidationError):
            DynamoModelConfig(model_name="m", **{field: value})  # type: ignore[arg-type]
