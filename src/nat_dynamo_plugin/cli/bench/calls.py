"""One streamed call as a client sees it, measured the same way whoever sends it."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

USAGE = {"stream_options": {"include_usage": True}}
"""Asks for the token counts of a stream."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a call brought.

    Attributes:
        ttft_s: seconds to the first event with a token; `None` if none came.
        total_s: seconds to the end.
        prompt_tokens: of the server's usage, if it said.
        cached_tokens: of the server's usage, if it said.
    """

    ttft_s: float | None
    total_s: float
    prompt_tokens: int | None = None
    cached_tokens: int | None = None


async def stream(client: Any, arguments: dict[str, Any]) -> Seen:
    """Ask a chat completion and read its answer as it comes.

    Args:
        client: OpenAI's async client.
        arguments: of the chat completion.

    Raises:
        openai.OpenAIError: what the client raises.
        ValueError: the stream ended before its answer did.
    """
    began = perf_counter()
    ttft_s: float | None = None
    usage: Any = None
    finished = False
    async with await client.chat.completions.create(**arguments, stream=True) as events:
        async for event in events:
            usage = event.usage or usage
            for choice in event.choices:
                finished = finished or choice.finish_reason is not None
                if ttft_s is None and _says(choice.delta):
                    ttft_s = perf_counter() - began
    total_s = perf_counter() - began
    if not finished:
        raise ValueError("the stream ended before its answer did")
    details = getattr(usage, "prompt_tokens_details", None)
    return Seen(ttft_s, total_s, getattr(usage, "prompt_tokens", None), getattr(details, "cached_tokens", None))


def _says(delta: Any) -> bool:
    """Whether an event has a token: content, a tool call, or what a server calls reasoning."""
    return bool(
        delta
        and (
            delta.content
            or delta.tool_calls
            or getattr(delta, "reasoning_content", None)
            or getattr(delta, "reasoning", None)
        )
    )


def salted(messages: list[Any], salt: str) -> list[Any]:
    """The same messages with other first words, so that no cache knows their prefix."""
    first, *rest = messages
    content = first.get("content") or ""
    text = {"type": "text", "text": salt}
    content = [text, *content] if isinstance(content, list) else f"{salt}\n{content}"
    return [{**first, "content": content}, *rest]
