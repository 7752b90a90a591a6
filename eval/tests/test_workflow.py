"""The registered workflow, built and run by NAT itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from nat.builder.builder import Builder
from nat.builder.framework_enum import LLMFrameworkEnum
from nat.builder.llm import LLMProviderInfo
from nat.builder.workflow_builder import WorkflowBuilder
from nat.cli.register_workflow import register_llm_client, register_llm_provider
from nat.cli.type_registry import GlobalTypeRegistry
from nat.data_models.llm import LLMBaseConfig

from nat_dynamo_bfcl.benchmark import get_task
from nat_dynamo_bfcl.evaluator import judge
from nat_dynamo_bfcl.register import BfclAgentConfig
from nat_dynamo_bfcl.testing import FakeChatModel, solve


class FakeLLMConfig(LLMBaseConfig, name="bfcl_fake_llm"):
    """An LLM without a server."""


async def provider(config: FakeLLMConfig, builder: Builder) -> AsyncIterator[LLMProviderInfo]:
    yield LLMProviderInfo(config=config, description="fake")


async def client(config: FakeLLMConfig, builder: Builder) -> AsyncIterator[FakeChatModel]:
    yield FakeChatModel(reply=solve)


async def test_the_workflow_solves_a_task_named_by_its_input() -> None:
    with GlobalTypeRegistry.push():
        register_llm_provider(config_type=FakeLLMConfig)(provider)
        register_llm_client(config_type=FakeLLMConfig, wrapper_type=LLMFrameworkEnum.LANGCHAIN)(client)
        async with WorkflowBuilder() as builder:
            await builder.add_llm("fake", FakeLLMConfig())
            await builder.set_workflow(BfclAgentConfig(llm_name="fake"))
            workflow = await builder.build()
            async with workflow.run('{"id": "multi_turn_base_31"}') as runner:
                output = await runner.result(to_type=str)
    assert "error" not in judge(output)
    assert len(json.loads(output)["answers"]) == len(get_task("multi_turn_base_31").turns)
