"""Google ADK."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.runners import InMemoryRunner
from google.genai import types


def agent(llm: Any, tools: list[Any], instructions: str) -> Callable[[str], Awaitable[str]]:
    """An `LlmAgent`, run in memory."""
    runner = InMemoryRunner(LlmAgent(name="clerk", model=llm, tools=tools, instruction=instructions))

    async def answer(question: str) -> str:
        session = await runner.session_service.create_session(app_name=runner.app_name, user_id="user")
        message = types.Content(role="user", parts=[types.Part(text=question)])
        text = ""
        async for event in runner.run_async(user_id="user", session_id=session.id, new_message=message):
            if event.is_final_response() and event.content and event.content.parts:
                text = "".join(part.text or "" for part in event.content.parts)
        return text

    return answer
