"""NAT's profiler traces: `all_requests_profiler_traces.json` of a `nat eval` with a profiler.

A list of requests, each with its `intermediate_steps`; of these the beginnings and ends of LLM calls tell when, and how
many tokens. Which beginning a prompt shares with others is told by its text, as far as the trace has it (NAT keeps what
the framework's callbacks see); a prompt of which there is no text continues the one before it in its question.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from nat_dynamo_plugin.recording.rows import RecordingError
from nat_dynamo_plugin.recording.traces.shape import Shape

BLOCK_TOKENS = 32
_CHARS_PER_TOKEN = 4.0
"""Where a trace has texts but no counts."""


def profiler(requests: object, place: str) -> list[Shape]:
    """The calls of a trace.

    Args:
        requests: the file's JSON.
        place: its name, for errors.

    Raises:
        RecordingError: it is none of NAT's.
    """
    calls: list[tuple[str, float, float, str, int | None, int | None]] = []
    try:
        for number, request in enumerate(_list(requests)):
            calls += _calls(f"r{request.get('request_number', number)}", request["intermediate_steps"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordingError(f"{place}: is no profiler trace of NAT: {type(error).__name__}: {error}") from error
    counted = [(len(text), prompt) for _, _, _, text, prompt, _ in calls if text and prompt]
    per_token = sum(c for c, _ in counted) / sum(t for _, t in counted) if counted else _CHARS_PER_TOKEN
    shapes = []
    for question, started_s, took_s, text, prompt, completion in calls:
        tokens = prompt or max(1, round(len(text) / per_token))
        blocks = tuple(_blocks(text, per_token)) or tuple(f"{question} {k}" for k in range(tokens // BLOCK_TOKENS))
        shapes.append(Shape(question, started_s, took_s, tokens, completion or 1, blocks, BLOCK_TOKENS))
    return shapes


def _list(data: object) -> Sequence[Mapping[str, Any]]:
    if not isinstance(data, list):
        raise TypeError("it is no list")
    return data


def _calls(
    question: str, steps: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, float, float, str, int | None, int | None]]:
    """Question, beginning and duration in s, text of the prompt, tokens of prompt and answer, of each call."""
    texts = {}
    for step in steps:
        payload = step["payload"]
        if payload["event_type"] == "LLM_START":
            texts[payload["UUID"]] = _prompt(payload)
        elif payload["event_type"] == "LLM_END":
            usage = (payload.get("usage_info") or {}).get("token_usage") or {}
            ended_s = float(payload["event_timestamp"])
            started_s = float(payload.get("span_event_timestamp") or ended_s)
            text = texts.get(payload["UUID"]) or _prompt(payload)
            yield (
                question,
                started_s,
                ended_s - started_s,
                text,
                usage.get("prompt_tokens") or None,
                usage.get("completion_tokens") or None,
            )


def _prompt(payload: Mapping[str, Any]) -> str:
    """A call's prompt, of all messages if they are there, as text that begins alike for prompts that do."""
    inputs = (payload.get("metadata") or {}).get("chat_inputs") or (payload.get("data") or {}).get("input")
    if not inputs:
        return ""
    messages = inputs if isinstance(inputs, list) else [inputs]
    return "\n".join(one if isinstance(one, str) else _message(one) for one in messages)


def _message(message: Any) -> str:
    """What of a message is in the prompt; not its ids and metadata, which differ where prompts do not."""
    if isinstance(message, Mapping) and "content" in message:
        told = [message.get("role") or message.get("type"), message["content"], message.get("tool_calls")]
        return json.dumps([one for one in told if one], default=str)
    return json.dumps(message, default=str)


def _blocks(text: str, per_token: float) -> Iterator[str]:
    """Names for the text up to the end of each whole block: equal where the texts are, up to there."""
    step = max(1, round(BLOCK_TOKENS * per_token))
    digest = sha256()
    for end in range(step, len(text) + 1, step):
        digest.update(text[end - step : end].encode("utf-8", "replace"))
        yield digest.hexdigest()[:16]
