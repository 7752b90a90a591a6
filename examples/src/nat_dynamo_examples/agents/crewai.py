"""CrewAI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from crewai import Agent, Crew, Task


def agent(llm: Any, tools: list[Any], instructions: str) -> Callable[[str], Awaitable[str]]:
    """A crew of one agent with one task."""

    async def answer(question: str) -> str:
        clerk = Agent(
            role="Clerk",
            goal="Answer questions about the stock",
            backstory=instructions,
            llm=llm,
            tools=tools,
            # Calls are retried below CrewAI; this would run the whole task again.
            max_retry_limit=0,
        )
        task = Task(description=question, expected_output="One sentence", agent=clerk)
        return str(await Crew(agents=[clerk], tasks=[task], verbose=False).kickoff_async())

    return answer
