"""Strands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from strands import Agent


def agent(llm: Any, tools: list[Any], instructions: str) -> Callable[[str], Awaitable[str]]:
    """An `Agent`. Its own retries, of calls that are throttled, are off: calls are retried below it."""

    async def answer(question: str) -> str:
        clerk = Agent(model=llm, tools=tools, system_prompt=instructions, callback_handler=None, retry_strategy=None)
        return str(await clerk.invoke_async(question)).strip()

    return answer
