"""What the real Dynamo sees: sessions, parents and hints, unary and streamed, sync and async."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nat.builder.builder import Builder
from nat.builder.framework_enum import LLMFrameworkEnum
from nat.builder.function_info import FunctionInfo
from nat.builder.workflow_builder import WorkflowBuilder
from nat.cli.register_workflow import register_function
from nat.data_models.component_ref import FunctionRef, LLMRef
from nat.data_models.function import FunctionBaseConfig
from nat.data_models.intermediate_step import IntermediateStep
from nat.runtime.loader import PluginTypes, discover_and_register_plugins

from nat_dynamo_plugin import CallRecord, DynamoHints, DynamoModelConfig, DynamoPrefixContext
from nat_dynamo_plugin.evaluators.records import records_from_trajectory
from nat_dynamo_plugin.telemetry import exporters as telemetry


class WriterConfig(FunctionBaseConfig, name="test_writer"):
    """An agent that makes two calls."""

    llm_name: LLMRef


class EditorConfig(FunctionBaseConfig, name="test_editor"):
    """An agent that calls, asks the writer, and calls again."""

    llm_name: LLMRef
    writer: FunctionRef


async def writer(config: WriterConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    llm = await builder.get_llm(config.llm_name, wrapper_type=LLMFrameworkEnum.LANGCHAIN)

    async def write(topic: str) -> str:
        """Write."""
        await llm.ainvoke(f"Draft something on {topic}")
        return str((await llm.ainvoke(f"Improve the text on {topic}")).content)

    yield FunctionInfo.from_fn(write, description="Writes.")


async def editor(config: EditorConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    llm = await builder.get_llm(config.llm_name, wrapper_type=LLMFrameworkEnum.LANGCHAIN)
    write = await builder.get_function(config.writer)

    async def edit(topic: str) -> str:
        """Edit."""
        await llm.ainvoke(f"Plan an article on {topic}")
        text = await write.ainvoke(topic)
        return str((await llm.ainvoke(f"Edit this: {text}")).content)

    yield FunctionInfo.from_fn(edit, description="Edits.")


@pytest.fixture(scope="module", autouse=True)
def _components() -> None:
    discover_and_register_plugins(PluginTypes.COMPONENT)
    register_function(config_type=WriterConfig, framework_wrappers=[LLMFrameworkEnum.LANGCHAIN])(writer)
    register_function(config_type=EditorConfig, framework_wrappers=[LLMFrameworkEnum.LANGCHAIN])(editor)


@pytest.fixture
def records() -> Any:
    kept: list[CallRecord] = []
    telemetry.add_exporter(kept.append)
    yield kept
    telemetry.set_exporters(None)


def traced(path: Path) -> list[dict[str, Any]]:
    # The last line may not be whole yet.
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def sessions_in(trace: list[dict[str, Any]]) -> list[tuple[str | None, str | None]]:
    found = []
    for row in trace:
        agent = row.get("agent_context") or row.get("event", {}).get("agent_context") or {}
        found.append((agent.get("session_id"), agent.get("parent_session_id")))
    return found


async def test_nested_agents_are_parent_and_child_in_dynamos_own_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    llm = DynamoModelConfig(local={"workers": 2, "request_trace": trace}, max_tokens=8)
    steps: list[IntermediateStep] = []
    async with WorkflowBuilder() as builder:
        await builder.add_llm("llm", llm)
        await builder.add_function("writer", WriterConfig(llm_name="llm"))
        await builder.set_workflow(EditorConfig(llm_name="llm", writer="writer"))
        workflow = await builder.build()

        async def question(i: int) -> None:
            with DynamoPrefixContext.scope(f"q{i}"):
                async with workflow.run(f"topic {i}") as runner:
                    runner.context.intermediate_step_manager.subscribe(steps.append)
                    await runner.result(to_type=str)

        await asyncio.gather(*(question(i) for i in range(3)))
        async with asyncio.timeout(60):
            while len(traced(trace)) < 12:  # noqa: ASYNC110 - written by another process, behind the answers
                await asyncio.sleep(0.02)
    seen = defaultdict(int)
    for pair in sessions_in(traced(trace)):
        seen[pair] += 1
    assert set(seen.values()) == {2}
    # A session of another agent ends in the first digits of NAT's id of its invocation.
    named = {(session.partition("#")[0], parent) for session, parent in seen}
    assert named == {pair for i in range(3) for pair in [(f"q{i}", None), (f"q{i}/writer", f"q{i}")]}
    assert len(seen) == 6
    records = records_from_trajectory(steps)
    assert len(records) == 12
    assert {(r.session_id, r.parent_session_id) for r in records} == set(seen)
    for i in range(3):
        assert len({r.worker_id for r in records if r.session_id == f"q{i}"}) == 1


async def test_every_way_of_calling_is_accepted_and_read(records: list[CallRecord]) -> None:
    llm = DynamoModelConfig(local={"workers": 2}, max_tokens=8, prefix_wire=["dynamo", "prefix_headers", "annotations"])
    async with WorkflowBuilder() as builder:
        await builder.add_llm("llm", llm)
        chat = await builder.get_llm("llm", wrapper_type=LLMFrameworkEnum.LANGCHAIN)
        text = "Tell me about caches. " * 20
        with DynamoPrefixContext.scope("one"), DynamoHints.scope(total_requests=4, osl=9, iat=5, priority=-2):
            await chat.ainvoke(text)
            chat.invoke(text)
            assert [c async for c in chat.astream(text)]
            assert list(chat.stream(text))
            # what the caller says himself, in the body and as a header
            await chat.ainvoke(
                text,
                extra_body={"nvext": {"agent_hints": {"osl": 3}, "annotations": ["mine:1"]}},
                extra_headers={"x-dynamo-session-id": "his-own"},
            )
    assert [r.status for r in records] == [200] * 5
    assert [r.streamed for r in records] == [False, False, True, True, False]
    assert [r.call_index for r in records] == list(range(5))
    assert all(r.error is None and r.finish_reason == "length" and r.completion_tokens == 8 for r in records)
    assert all(r.worker_id is not None and r.server_ttft_ms is not None for r in records)
    assert len({r.worker_id for r in records[:4]}) == 1
    assert records[0].cached_tokens == 0 and all(r.cached_tokens for r in records[1:4])
    assert all(r.client_ttft_ms is not None and r.client_itl_ms is not None for r in records[2:4])


async def test_a_prefix_of_one_request_sticks_to_nobody(records: list[CallRecord]) -> None:
    llm = DynamoModelConfig(local={"workers": 4}, max_tokens=4, prefix_total_requests=1)
    async with WorkflowBuilder() as builder:
        await builder.add_llm("llm", llm)
        chat = await builder.get_llm("llm", wrapper_type=LLMFrameworkEnum.LANGCHAIN)
        with DynamoPrefixContext.scope("one"):
            await asyncio.gather(*(chat.ainvoke(f"{i} " + f"unrelated question {i} " * 30) for i in range(16)))
    assert {r.session_id for r in records} == {None} and {r.prefix_id for r in records} == {"one"}
    assert len({r.worker_id for r in records}) > 1


async def test_two_builds_of_one_config_have_a_dynamo_each(records: list[CallRecord]) -> None:
    llm = DynamoModelConfig(local={"workers": 1}, max_tokens=4)
    both_run = asyncio.Barrier(2)

    async def build() -> None:
        async with WorkflowBuilder() as builder:
            await builder.add_llm("llm", llm)
            await both_run.wait()
            chat = await builder.get_llm("llm", wrapper_type=LLMFrameworkEnum.LANGCHAIN)
            await chat.ainvoke("hello")
            await both_run.wait()

    await asyncio.gather(build(), build())
    assert len({r.worker_id for r in records}) == 2
