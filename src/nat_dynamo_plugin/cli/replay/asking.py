"""Asks the calls of one planned question, each when its turn comes. What plays a load shares this."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from nat_dynamo_plugin.cli.replay.schedule import PlannedQuestion
from nat_dynamo_plugin.recording.rows import RecordedCall


async def ask_question(planned: PlannedQuestion, ask: Callable[[int], Awaitable[None]], pace: float = 1.0) -> None:
    """Ask a question's calls: each after those that had ended before it began, and after its pause.

    Args:
        planned: the question.
        ask: asks the recorded call of a number.
        pace: how many times faster pauses pass.

    Raises:
        Exception: what `ask` raised first; the other calls have gone on until their turn was over.
    """
    done = [asyncio.Event() for _ in planned.calls]

    async def call(place: int) -> None:
        this = planned.calls[place]
        for other in this.after:
            await done[other].wait()
        await asyncio.sleep(this.gap_s / pace)
        try:
            await ask(this.number)
        finally:
            done[place].set()

    await asyncio.gather(*(call(place) for place in range(len(planned.calls))))


def asked(row: RecordedCall, model: str, max_tokens: int) -> dict[str, Any]:
    """The arguments of a chat completion that asks what was recorded.

    Args:
        row: the recorded call.
        model: to ask.
        max_tokens: that its answer may have.
    """
    arguments: dict[str, Any] = {"model": model, "messages": row.messages, "max_tokens": max_tokens}
    if row.tools:  # their schemas were not kept; the parser wants to see that there are tools
        arguments["tools"] = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in row.tools]
    return arguments
