"""AutoGen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from autogen_agentchat.agents import AssistantAgent


def agent(llm: Any, tools: list[Any], instructions: str) -> Callable[[str], Awaitable[str]]:
    """An `AssistantAgent` that puts its tools' results into words."""

    async def answer(question: str) -> str:
        clerk = AssistantAgent(
            "clerk", model_client=llm, tools=tools, system_message=instructions, reflect_on_tool_use=True
        )
        return str((await clerk.run(task=question)).messages[-1].content)

    return answer
