"""`nat` with a workflow `clock_agent`, whose prompts tell the time: three calls a question, each a minute later.

The clock is the number of calls made, so that it differs at each call on any machine.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from itertools import count
from typing import Literal

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from nat.builder.builder import Builder
from nat.builder.framework_enum import LLMFrameworkEnum
from nat.builder.function_info import FunctionInfo
from nat.cli.main import run_cli
from nat.cli.register_workflow import register_function
from nat.data_models.component_ref import LLMRef
from nat.data_models.function import FunctionBaseConfig

RULES = "Answer the customer politely, look up each order before you speak of it, and never promise a date. " * 40


class ClockAgentConfig(FunctionBaseConfig, name="clock_agent"):
    """Where the time stands: at the beginning of the system message, or in the last message."""

    llm_name: LLMRef
    clock: Literal["first", "last"] = "first"


@register_function(config_type=ClockAgentConfig, framework_wrappers=[LLMFrameworkEnum.LANGCHAIN])
async def clock_agent(config: ClockAgentConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    """The workflow."""
    llm = await builder.get_llm(config.llm_name, wrapper_type=LLMFrameworkEnum.LANGCHAIN)
    calls = count()

    async def answer(question: str) -> str:
        said: list[AnyMessage] = [HumanMessage(question)]
        for _ in range(3):
            at = next(calls)
            now = f"It is 2026-11-24 {at // 60:02}:{at % 60:02}."
            if config.clock == "first":
                await llm.ainvoke([SystemMessage(f"{now} {RULES}"), *said])
            else:
                await llm.ainvoke([SystemMessage(RULES), *said, HumanMessage(now)])
            said += [HumanMessage("That does not help me. Please go on.")]
        return "done"

    yield FunctionInfo.from_fn(answer, description="Answers with the time at hand.")


if __name__ == "__main__":
    sys.exit(run_cli())
