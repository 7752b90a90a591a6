"""LlamaIndex."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent


def agent(llm: Any, tools: list[Any], instructions: str) -> Callable[[str], Awaitable[str]]:
    """A `FunctionAgent`."""

    async def answer(question: str) -> str:
        return str(await FunctionAgent(llm=llm, tools=tools, system_prompt=instructions).run(question))

    return answer
