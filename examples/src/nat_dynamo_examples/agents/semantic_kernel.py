"""Semantic Kernel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from semantic_kernel import Kernel
from semantic_kernel.agents import ChatCompletionAgent


def agent(llm: Any, tools: list[dict[str, Any]], instructions: str) -> Callable[[str], Awaitable[str]]:
    """A `ChatCompletionAgent` with the tools as one plugin."""
    kernel = Kernel(services=[llm])
    kernel.add_plugin({name: function for tool in tools for name, function in tool.items()}, plugin_name="tools")

    async def answer(question: str) -> str:
        clerk = ChatCompletionAgent(kernel=kernel, name="clerk", instructions=instructions)
        return str(await clerk.get_response(messages=question))

    return answer
