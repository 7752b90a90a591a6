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
from nat_dynamo_plugin.admission.limits import FILL


@asynccontextmanager
async def auto_on(**local: Any) -> AsyncIterator[tuple[Any, Gate]]:
    """A LangChain client with `max_active_prefixes: auto` on an embedded Dynamo, and its gate."""
    discover_and_register_plugins(PluginTypes.COMPONENT)
    llm = DynamoModelConfig(local=local, max_tokens=4, max_active_prefixes="auto")
    async with WorkflowBuilder() as builder:
        await builder.add_llm("llm", llm)
        chat = await builder.get_llm("llm", wrapper_type=LLMFrameworkEnum.LANGCHAIN)
        assert llm.running_service is not None and llm.running_service.admission is not None
        yield chat, llm.running_service.admission.gate


async def capacity_is_known(gate: Gate) -> None:
    async with asyncio.timeout(60):
        while gate.room is None:  # noqa: ASYNC110 - another thread
            await asyncio.sleep(0.01)


async def test_auto_begins_with_what_the_frontend_says_its_workers_hold() -> None:
    async with auto_on(workers=2, kv_blocks=1024, block_size=16) as (chat, gate):
        assert gate.room is None
        with DynamoPrefixContext.scope("first"):
            await chat.ainvoke("Tell me about caches. " * 200)
            await capacity_is_known(gate)
            # About 4 characters a token.
            assert 500 < gate.tokens < 2500
        assert gate.room == FILL * 2 * 1024 * 16
        assert gate.limit is None
        assert gate.tokens == 0.0


async def test_questions_that_do_not_fit_the_caches_together_wait_for_each_other() -> None:
    async with auto_on(workers=1, kv_blocks=256, block_size=16) as (chat, gate):
        with DynamoPrefixContext.scope("before"):
            await chat.ainvoke("How large are you?")
        await capacity_is_known(gate)
        most = 0

        async def question(number: int) -> None:
            nonlocal most
            with DynamoPrefixContext.scope(f"q{number}"):
                for _ in range(3):
                    await chat.ainvoke(f"{number} " * 1200)
                    most = max(most, gate.under_way)

        await asyncio.gather(*(question(number) for number in range(10, 18)))
    assert 1 <= most < 8
    assert (gate.under_way, gate.waiting) == (0, 0)
