"""OpenAI: one key for all turns of a question, and what newer models have besides."""

from __future__ import annotations

import re
from typing import Any

from nat_dynamo_plugin.dialects.cache_key import key_of
from nat_dynamo_plugin.dialects.provider import ProviderDialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.plan.serving import ServingPlan

MARK = "prompt_cache_breakpoint"
_VERSION = re.compile(r"gpt-(\d+)(?:\.(\d+))?(?![\d.])")
_MARKED_FROM = (5, 6)
"""The first models with breakpoints and options; those before have a retention, which these refuse
(openai/codex#39397)."""
_KEPT_FROM = (4, 1)
"""The first models that can keep prefixes for 24 hours."""
_TEXTS = {"text", "input_text"}
_ASKING = ("system", "developer", "user", "tool")


def version_of(model: str) -> tuple[int, int] | None:
    """Which GPT a model is, as (5, 6); `None` for any other model."""
    found = _VERSION.match(model.rpartition("/")[2])
    return None if found is None else (int(found[1]), int(found[2] or 0))


class OpenAI(ProviderDialect):
    """`prompt_cache_key`; breakpoints for models from gpt-5.6 on, `prompt_cache_retention: 24h` for those before.

    Of a model whose name tells no version, only the key is said.
    """

    name = "openai"
    provider = "openai"
    is_steady = False

    def say(self, plan: ServingPlan) -> Said:
        """The key, and what the user has chosen for this model."""
        members: dict[str, Any] = {"prompt_cache_key": key_of(plan)}
        version = version_of(self.cache.model)
        if version is None:
            return Said(members=members)
        if version >= _MARKED_FROM:
            if self.cache.ttl == "30m":
                members["prompt_cache_options"] = {"ttl": "30m", "mode": "implicit"}
            return Said(members=members, edit=mark_texts if self.cache.marks == "explicit" else None)
        if self.cache.ttl == "24h" and version >= _KEPT_FROM:
            members["prompt_cache_retention"] = "24h"
        return Said(members=members)


def mark_texts(body: dict[str, Any]) -> None:
    """Put breakpoints behind the system text and behind the last two messages that ask something.

    With its own at the end, OpenAI writes the latest three of them; one that is there already is the caller's, who
    then marks alone. A body whose model has none is left as it is.
    """
    version = version_of(str(body.get("model", "")))
    items = body.get("messages", body.get("input"))
    if version is None or version < _MARKED_FROM or not isinstance(items, list):
        return
    asking = [item for item in items if isinstance(item, dict) and item.get("role") in _ASKING]
    if any(MARK in part for item in asking for part in _parts(item)):
        return
    system = [item for item in asking[:2] if item["role"] in ("system", "developer")][-1:]
    chosen = {id(item): item for item in (*system, *asking[-2:])}
    for item in chosen.values():
        _mark_end(item, "input_text" if "input" in body else "text")


def _parts(item: dict[str, Any]) -> list[dict[str, Any]]:
    content = item.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _mark_end(item: dict[str, Any], kind: str) -> None:
    content = item.get("content")
    if isinstance(content, str) and content:
        item["content"] = [{"type": kind, "text": content, MARK: {"mode": "explicit"}}]
        return
    texts = [part for part in _parts(item) if part.get("type") in _TEXTS]
    if texts:
        texts[-1][MARK] = {"mode": "explicit"}
