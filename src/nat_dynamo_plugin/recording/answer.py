"""What a chat completion said, of an answer in one piece or of a stream's events. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from nat_dynamo_plugin.recording.rows import ToolCall

Said = tuple[str | None, list[ToolCall]]
"""The text, and the tools that were called."""


def of_whole(content: bytes) -> Said | None:
    """Of an answer in one piece; `None` if it is none, or one that calls a function the old way (`function_call`).

    Of several choices (`n`) the first counts.
    """
    try:
        message = json.loads(content)["choices"][0]["message"]
        if message.get("function_call"):
            return None
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        return message.get("content"), [ToolCall(call["name"], call["arguments"]) for call in calls]
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def of_events(events: Iterable[bytes]) -> Said | None:
    """Of the data of a stream's events; `None` as of an answer in one piece. Of several choices the first counts.

    Deltas of one tool call have one `index`; its name comes with the first, its arguments in pieces (OpenAI's
    reference, "The chat completion chunk object").
    """
    text: list[str] = []
    calls: dict[int, tuple[str, list[str]]] = {}
    try:
        for data in events:
            if data == b"[DONE]":
                break
            choices: list[dict[str, Any]] = json.loads(data).get("choices") or []
            first = next((choice for choice in choices if not choice.get("index")), {})
            delta = first.get("delta") or {}
            if delta.get("function_call"):
                return None
            text.append(delta.get("content") or "")
            for part in delta.get("tool_calls") or ():
                function = part.get("function") or {}
                name, arguments = calls.setdefault(part.get("index", 0), (function.get("name") or "", []))
                arguments.append(function.get("arguments") or "")
                if not name and function.get("name"):
                    calls[part.get("index", 0)] = (function["name"], arguments)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return "".join(text) or None, [ToolCall(name, "".join(parts)) for _, (name, parts) in sorted(calls.items())]
