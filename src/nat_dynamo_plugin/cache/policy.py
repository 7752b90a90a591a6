"""Which calls may be answered from the cache, and which answers are kept. No I/O in here."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

ENDINGS = frozenset(("stop", "tool_calls", "function_call"))
"""Finish reasons of whole answers."""

_VERSION = re.compile(r"(?:[-@:]v?\d{3,}(?:[-.]?\d+)*|-latest)")
_TOOLS = frozenset(("function", "custom"))


def why_not_asked(body: dict[str, Any], *, deterministic_only: bool, ignored: Collection[str] = ()) -> str | None:
    """Why a call is not to be answered from the cache, in a word; `None` if it may be.

    Args:
        body: the request's members.
        deterministic_only: whether an answer drawn at random is to be drawn anew each time.
        ignored: members that do not count.
    """
    if body.get("store") or body.get("background"):
        return "stored_at_server"
    if body.get("web_search_options") or not _tools_are_ours(body.get("tools")):
        return "server_tool"
    modalities = body.get("modalities")
    if body.get("audio") or (isinstance(modalities, list) and modalities != ["text"]):
        return "audio"
    if not isinstance(body.get("messages"), list):
        return "no_messages"
    if any(_is_fetched(part) for message in body["messages"] for part in _parts(message)):
        return "fetched_content"
    if deterministic_only and body.get("temperature") != 0 and (body.get("seed") is None or "seed" in ignored):
        return "random"
    return None


def _tools_are_ours(tools: Any) -> bool:
    """Whether the caller runs all tools, not the server."""
    if not isinstance(tools, list):
        return True
    return all(isinstance(tool, dict) and tool.get("type", "function") in _TOOLS for tool in tools)


def _parts(message: Any) -> list[Any]:
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, list) else []


def _is_fetched(part: Any) -> bool:
    """Whether the server gets a part from elsewhere, where it may change."""
    if not isinstance(part, dict):
        return False
    for value in part.values():
        place = value.get("url") if isinstance(value, dict) else value
        if isinstance(value, dict) and value.get("file_id"):
            return True
        if isinstance(place, str) and part.get("type") not in ("text", "refusal") and "://" in place[:16]:
            return True
    return False


def has_image_or_tool(messages: list[Any]) -> bool:
    """Whether anything but plain text is in a conversation: images, files, tool calls or tool results."""
    for message in messages:
        if not isinstance(message, dict) or message.get("role") in ("tool", "function") or message.get("tool_calls"):
            return True
        if any(not isinstance(part, dict) or part.get("type") != "text" for part in _parts(message)):
            return True
    return False


def why_not_kept(answer: Any, asked_model: str, aliases: Collection[str] = ()) -> str | None:
    """Why an answer is not to be kept, in a word; `None` if it is whole and good.

    Args:
        answer: a chat completion in one piece.
        asked_model: the model that was asked for.
        aliases: names that stand for whatever model answers.
    """
    if not isinstance(answer, dict) or answer.get("error"):
        return "error"
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        return "no_choices"
    for choice in choices:
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            return "no_message"
        if choice.get("finish_reason") not in ENDINGS:
            return str(choice.get("finish_reason") or "unfinished")
        if not any(message.get(name) for name in ("content", "tool_calls", "function_call", "refusal")):
            return "empty"
        if message.get("audio"):
            return "audio"
    if asked_model not in aliases and not same_model(asked_model, answer.get("model")):
        return "other_model"
    return None


def same_model(asked: str, answered: Any) -> bool:
    """Whether the model that answered is the one asked for, maybe with its version, and none to fall back on.

    `gpt-4o` is also `gpt-4o-2024-08-06`, and `openai/gpt-4o`; it is not `gpt-4o-mini`.
    """
    if not isinstance(answered, str) or not answered or not asked:
        return True  # nobody said
    one, other = asked.lower(), answered.lower()
    if one == other or one.endswith("/" + other) or other.endswith("/" + one):
        return True
    one, other = one.rpartition("/")[2], other.rpartition("/")[2]
    return other == one or (other.startswith(one) and _VERSION.fullmatch(other[len(one) :]) is not None)
