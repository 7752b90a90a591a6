"""What the real Dynamo says of its KV caches, and what the gate makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nat.builder.framework_enum import LLMFrameworkEnum
from nat.builder.workflow_builder import WorkflowBuilder
from nat.runtime.loader import PluginTypes, discover_and_register_plugins

from nat_dynamo_plugin import DynamoModelConfig, DynamoPrefixContext
from nat_dynamo_plugin.admission.gate import Gate
from nat_dynamo_plugin.admission.goodput import GoodputLimit


@asynccontextmanager
async def auto_on(**local: Any) -> AsyncIterator[tuple[Any, Gate]]:
    """A LangChain client with `max_active_prefixes: auto` on an embedded Dynamo, and its gate."""
    discover_and_register_plugins(PluginTypes.COMPONENT)
    llm = DynamoModelConfig(local=local, max_tokens=8, max_active_prefixes="auto")
    async with WorkflowBuilder() as builder:
        await builder.add_llm("llm", llm)
        chat = await builder.get_llm("llm", wrapper_type=LLMFrameworkEnum.LANGCHAIN)
        assert llm.running_service is not None and llm.running_service.admission is not None
        yield chat, llm.running_service.admission.gate


def limit_of(gate: Gate) -> GoodputLimit:
    assert isinstance(gate._limiter, GoodputLimit)
    return gate._limiter


async def capacity_is_known(gate: Gate) -> None:
    async with asyncio.timeout(60):
        while not limit_of(gate).capacity:  # noqa: ASYNC110 - another thread
            await asyncio.sleep(0.01)


async def test_auto_knows_what_the_frontend_says_its_workers_hold() -> None:
    async with auto_on(workers=2, kv_blocks=1024, block_size=16) as (chat, gate):
        with DynamoPrefixContext.scope("first"):
            await chat.ainvoke("Tell me about caches. " * 200)
            await capacity_is_known(gate)
            # About 4 characters a token.
            assert 500 < gate.tokens < 2500
        assert (limit_of(gate).capacity, limit_of(gate).workers) == (2 * 1024 * 16, 2)
        assert (gate.limit, gate.room) == (None, None), "there is nothing to hold back for"
        assert gate.tokens == 0.0


async def test_questions_count_at_their_true_size_and_leave_nothing() -> None:
    """Whether to hold any back is for the gate, by what answers cost: see `eval/benchmarks/admission.py`."""
    async with auto_on(workers=1, kv_blocks=512, block_size=16) as (chat, gate):
        most = 0.0

        async def question(number: int) -> None:
            nonlocal most
            with DynamoPrefixContext.scope(f"q{number}"):
                for _ in range(3):
                    await chat.ainvoke(f"{number} " * 800)
                    most = max(most, gate.tokens)

        await asyncio.gather(*(question(number) for number in range(10, 22)))
    assert most > 512 * 16, "together they are more than the caches hold"
    assert (gate.under_way, gate.waiting, gate.tokens) == (0, 0, 0.0)
