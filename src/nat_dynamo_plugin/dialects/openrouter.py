"""OpenRouter: says what each answer costs. What its providers cache, they cache by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nat_dynamo_plugin.dialects.provider import ProviderDialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.dialects.usage import Usage, openai_usage, usd
from nat_dynamo_plugin.plan.serving import ServingPlan


class OpenRouter(ProviderDialect):
    """Says nothing."""

    name = "openrouter"
    provider = "openrouter"
    needs_plan = False

    def say(self, plan: ServingPlan) -> Said:
        """Nothing."""
        return Said()

    def read_usage(self, usage: Mapping[str, Any]) -> Usage | None:
        """OpenAI's names, and `cost` in USD."""
        found = openai_usage(usage)
        return None if found is None else found._replace(reported_usd=usd(usage, "cost"))
