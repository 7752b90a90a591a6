"""Agno."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agno.agent import Agent


def agent(llm: Any, tools: list[Any], instructions: str) -> Callable[[str], Awaitable[str]]:
    """An `Agent`."""

    async def answer(question: str) -> str:
        clerk = Agent(model=llm, tools=tools, instructions=instructions, telemetry=False)
        return str((await clerk.arun(question)).content)

    return answer
