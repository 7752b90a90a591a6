"""What NAT's entry point loads: the workflow, dataset and evaluator of the benchmark, by name.

LangGraph, pandas and BFCL are imported where they are used: every `nat` command loads this module.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

from nat.builder.builder import Builder, EvalBuilder
from nat.builder.dataset_loader import DatasetLoaderInfo
from nat.builder.evaluator import EvaluatorInfo
from nat.builder.framework_enum import LLMFrameworkEnum
from nat.builder.function_info import FunctionInfo
from nat.cli.register_workflow import register_dataset_loader, register_evaluator, register_function
from nat.data_models.component_ref import LLMRef
from nat.data_models.evaluator import EvaluatorBaseConfig
from nat.data_models.function import FunctionBaseConfig
from pydantic import Field

from nat_dynamo_bfcl.dataset import BfclMultiTurnConfig, load, task_of


class BfclAgentConfig(FunctionBaseConfig, name="bfcl_agent"):
    """An agent that answers BFCL's multi-turn tasks with a tool loop, executing BFCL's tools."""

    llm_name: LLMRef = Field(description="The LLM under test.")
    max_steps: int = Field(
        default=20,
        ge=1,
        description="Replies with calls that a turn may take, at least 1; one more may close it. BFCL's limit is 20.",
    )
    system_prompt: str | None = Field(default=None, description="Another system prompt than the agent's own.")
    ask: Literal["async", "async_stream", "sync", "sync_stream"] = Field(
        default="async", description="How LLM calls are made: in the event loop or in threads, unary or streamed."
    )


class BfclAccuracyConfig(EvaluatorBaseConfig, name="bfcl_accuracy"):
    """Share of questions whose executed calls BFCL's own multi-turn checker accepts."""


@register_function(config_type=BfclAgentConfig, framework_wrappers=[LLMFrameworkEnum.LANGCHAIN])
async def bfcl_agent(config: BfclAgentConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    """The workflow. Its input names a task, its output is what `bfcl_accuracy` judges."""
    from nat_dynamo_bfcl.agent import SYSTEM_PROMPT, BfclAgent

    llm = await builder.get_llm(config.llm_name, wrapper_type=LLMFrameworkEnum.LANGCHAIN)
    agent = BfclAgent(
        llm, system_prompt=config.system_prompt or SYSTEM_PROMPT, max_steps=config.max_steps, ask=config.ask
    )

    async def answer(question: str) -> str:
        return (await agent.answer(task_of(question))).to_json()

    yield FunctionInfo.from_fn(answer, description="Answers a BFCL multi-turn task, named by its id.")


@register_dataset_loader(config_type=BfclMultiTurnConfig)
async def bfcl_multi_turn(config: BfclMultiTurnConfig, builder: EvalBuilder) -> AsyncIterator[DatasetLoaderInfo]:
    """BFCL's multi-turn base tasks."""
    yield DatasetLoaderInfo(config=config, load_fn=load, description="BFCL's multi-turn base tasks.")


@register_evaluator(config_type=BfclAccuracyConfig)
async def bfcl_accuracy(config: BfclAccuracyConfig, builder: EvalBuilder) -> AsyncIterator[EvaluatorInfo]:
    """BFCL's own multi-turn checker."""
    from nat_dynamo_bfcl.evaluator import BfclAccuracy

    evaluator = BfclAccuracy(builder.get_max_concurrency())
    yield EvaluatorInfo(config=config, evaluate_fn=evaluator.evaluate, description="BFCL multi-turn accuracy")
