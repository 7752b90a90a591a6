"""Bedrock's Converse API: `cachePoint` blocks behind what is to be cached, and usage with cached tokens outside."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from nat_dynamo_plugin.dialects.marks import SHORT, Block, Prompt, mark
from nat_dynamo_plugin.dialects.provider import ProviderDialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.dialects.usage import Usage, count
from nat_dynamo_plugin.plan.serving import ServingPlan

MARK = "cachePoint"
_LONG_LIVED = "anthropic.claude"


class Bedrock(ProviderDialect):
    """Marks for Claude and Nova, the only models that take them; others answer 400."""

    name = "bedrock"
    provider = "aws.bedrock"
    needs_plan = False

    def say(self, plan: ServingPlan) -> Said:
        """Marks in a Converse body; nothing of the caller's changes."""
        return Said() if self.cache.marks == "off" else Said(edit=self.edit)

    def edit(self, body: dict[str, Any]) -> None:
        """Mark a body, or the parameters of boto3's `converse` (`modelId` besides)."""
        model = str(body.get("modelId") or self.cache.model)
        is_claude, is_nova = _LONG_LIVED in model, "amazon.nova" in model
        if not (is_claude or is_nova):
            return
        prompt = _prompt(body, with_tools=is_claude)
        if prompt is not None:
            mark(prompt, self.cache.ttl if is_claude else None)

    def read_usage(self, usage: Mapping[str, Any]) -> Usage | None:
        """The prompt is the sum of what is named apart: read, written and the rest."""
        rest = count(usage, "inputTokens")
        if rest is None:
            return None
        read, written = count(usage, "cacheReadInputTokens") or 0, count(usage, "cacheWriteInputTokens") or 0
        writes: dict[str, int] = {}
        details = usage.get("cacheDetails")
        for one in details if isinstance(details, list) else []:
            tokens = count(one, "inputTokens") if isinstance(one, Mapping) else None
            if tokens:
                writes[str(one.get("ttl"))] = writes.get(str(one.get("ttl")), 0) + tokens
        written = max(written, sum(writes.values()))
        return Usage(
            prompt_tokens=rest + read + written,
            cached_tokens=read,
            completion_tokens=count(usage, "outputTokens"),
            cache_write_tokens=written,
            cache_writes=writes,
        )


def _prompt(body: dict[str, Any], *, with_tools: bool) -> Prompt | None:
    messages = body.get("messages")
    if not isinstance(messages, list):
        return None
    config = body.get("toolConfig")
    tools = _blocks(config.get("tools")) if isinstance(config, dict) else []
    if not with_tools:
        tools = [Block(one.size, None, one.ttl) for one in tools]
    contents = [message.get("content") for message in messages if isinstance(message, dict)]
    return Prompt(tools, _blocks(body.get("system")), [_blocks(content) for content in contents])


def _blocks(holder: Any) -> list[Block]:
    """The blocks of a list; a `cachePoint` belongs to the one before it."""
    blocks: list[Block] = []
    if not isinstance(holder, list):
        return blocks
    for item in holder:
        callers = item.get(MARK) if isinstance(item, dict) else None
        if isinstance(callers, dict):
            if blocks:
                blocks[-1].ttl = callers.get("ttl") or SHORT
            continue
        blocks.append(Block(len(json.dumps(item, ensure_ascii=False, default=str))))
    if blocks:
        blocks[-1].put = _putting_behind(holder)  # a mark goes to the end of the list
    return blocks


def _putting_behind(holder: list[Any]) -> Callable[[str], None]:
    def put(ttl: str) -> None:
        holder.append({MARK: {"type": "default"} if ttl == SHORT else {"type": "default", "ttl": ttl}})

    return put
