"""DeepSeek: caches by itself, and has names of its own for what it read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nat_dynamo_plugin.dialects.provider import ProviderDialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.dialects.usage import Usage, count, openai_usage
from nat_dynamo_plugin.plan.serving import ServingPlan


class DeepSeek(ProviderDialect):
    """Says nothing."""

    name = "deepseek"
    provider = "deepseek"
    needs_plan = False

    def say(self, plan: ServingPlan) -> Said:
        """Nothing."""
        return Said()

    def read_usage(self, usage: Mapping[str, Any]) -> Usage | None:
        """Hits are inside the prompt's tokens, which are hits and misses."""
        found, hits = openai_usage(usage), count(usage, "prompt_cache_hit_tokens")
        return found if found is None or hits is None else found._replace(cached_tokens=hits)
