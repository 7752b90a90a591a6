"""Anthropic: marks in what the caller sends, and usage in which cached tokens are outside the prompt's.

For bodies of its own Messages API, and for chat completions that a gateway takes to it with `cache_control` on parts
(Anthropic's own endpoint of OpenAI's form caches nothing, and passes over the marks).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nat_dynamo_plugin.dialects.marks import LONG, MAX_MARKS, SHORT, Block, Prompt, lifetime_at, mark
from nat_dynamo_plugin.dialects.provider import ProviderDialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.dialects.usage import Usage, count, details, openai_usage
from nat_dynamo_plugin.plan.serving import ServingPlan

MARK = "cache_control"
_UNMARKED = ("thinking", "redacted_thinking")
_SYSTEM = ("system", "developer")


class Anthropic(ProviderDialect):
    """`cache_control`: automatic, which the server puts on the last block that it can cache, or explicit marks."""

    name = "anthropic"
    provider = "anthropic"
    needs_plan = False

    def say(self, plan: ServingPlan) -> Said:
        """Marks in the body; the caller's stay, and count."""
        return Said() if self.cache.marks == "off" else Said(edit=self.edit)

    def edit(self, body: dict[str, Any]) -> None:
        """Mark a body of the Messages API, or of chat completions."""
        prompt = prompt_of(body)
        if MARK in body or prompt is None:
            return  # the caller has said how
        if self.cache.marks == "explicit" or _is_openai(body):
            mark(prompt, self.cache.ttl)
            return
        blocks = prompt.blocks()
        if sum(block.ttl is not None for block in blocks) < MAX_MARKS:
            body[MARK] = _mark(lifetime_at(blocks, len(blocks), self.cache.ttl) or SHORT)

    def read_usage(self, usage: Mapping[str, Any]) -> Usage | None:
        """The prompt is the sum of what is named apart: read, written and the rest."""
        return messages_usage(usage) if "prompt_tokens" not in usage else openai_usage(usage)


def messages_usage(usage: Mapping[str, Any]) -> Usage | None:
    """Usage as the Messages API names it: cached and written tokens are outside `input_tokens`."""
    rest = count(usage, "input_tokens")
    if rest is None:
        return None
    read, written = count(usage, "cache_read_input_tokens") or 0, count(usage, "cache_creation_input_tokens") or 0
    by_ttl = details(usage, "cache_creation")
    writes = {ttl: count(by_ttl, f"ephemeral_{ttl}_input_tokens") or 0 for ttl in (SHORT, LONG)}
    written = max(written, sum(writes.values()))
    return Usage(
        prompt_tokens=rest + read + written,
        cached_tokens=read,
        completion_tokens=count(usage, "output_tokens"),
        cache_write_tokens=written,
        cache_writes={ttl: tokens for ttl, tokens in writes.items() if tokens},
        reasoning_tokens=count(details(usage, "output_tokens_details"), "thinking_tokens"),
    )


def _is_openai(body: Mapping[str, Any]) -> bool:
    tools, messages = body.get("tools"), body.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    return (isinstance(first, dict) and first.get("role") in _SYSTEM) or (
        isinstance(tools, list) and any(isinstance(tool, dict) and "function" in tool for tool in tools)
    )


def prompt_of(body: dict[str, Any]) -> Prompt | None:
    """The prompt of a body; `None` if it is not of a form that we know."""
    messages, tools, system = body.get("messages"), body.get("tools") or [], body.get("system")
    if not isinstance(messages, list) or not isinstance(tools, list):
        return None
    said = [message for message in messages if isinstance(message, dict)]
    texts = [*_content(body, "system")] if system else []
    while said and said[0].get("role") in _SYSTEM:
        texts += _content(said.pop(0), "content")
    return Prompt(
        tools=[_block(tool, is_tool=True) for tool in tools if isinstance(tool, dict)],
        system=texts,
        messages=[[*_content(message, "content")] for message in said],
    )


def _content(holder: dict[str, Any], name: str) -> Iterable[Block]:
    content = holder.get(name)
    if isinstance(content, str) and content:
        yield Block(len(content), _putting_in(holder, name, content))
    elif isinstance(content, list):
        for block in content:
            if isinstance(block, dict):
                yield _block(block)


def _block(block: dict[str, Any], *, is_tool: bool = False) -> Block:
    kind = block.get("type")
    # An empty text can not be marked, nor can thinking, and a tool of OpenAI's form has no place for it.
    can = (
        "function" not in block if is_tool else kind not in _UNMARKED and not (kind == "text" and not block.get("text"))
    )
    callers = block.get(MARK)
    return Block(
        len(json.dumps(block, ensure_ascii=False)),
        _putting_on(block) if can else None,
        (callers.get("ttl") or SHORT) if isinstance(callers, dict) else None,
    )


def _putting_on(block: dict[str, Any]) -> Callable[[str], None]:
    def put(ttl: str) -> None:
        block[MARK] = _mark(ttl)

    return put


def _putting_in(holder: dict[str, Any], name: str, text: str) -> Callable[[str], None]:
    def put(ttl: str) -> None:
        holder[name] = [{"type": "text", "text": text, MARK: _mark(ttl)}]

    return put


def _mark(ttl: str) -> dict[str, str]:
    # Five minutes are the default, and gateways that are older than `ttl` refuse it.
    return {"type": "ephemeral"} if ttl == SHORT else {"type": "ephemeral", "ttl": ttl}
