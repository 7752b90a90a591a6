"""xAI: a header for chat completions, a field for responses, and usage in which reasoning is outside the answer's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nat_dynamo_plugin.dialects.cache_key import key_of
from nat_dynamo_plugin.dialects.provider import ProviderDialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.dialects.usage import Usage, count, openai_usage, usd
from nat_dynamo_plugin.plan.serving import ServingPlan

TICKS_PER_USD = 1e10
"""https://docs.x.ai/developers/cost-tracking"""


class XAI(ProviderDialect):
    """`x-grok-conv-id`, which chat completions go by, and `prompt_cache_key`, by which responses go."""

    name = "xai"
    provider = "x_ai"
    is_steady = False

    def say(self, plan: ServingPlan) -> Said:
        """The question's key, in both places."""
        key = key_of(plan)
        return Said(((b"x-grok-conv-id", key.encode("ascii")),), {"prompt_cache_key": key})

    def read_usage(self, usage: Mapping[str, Any]) -> Usage | None:
        """Chat completions count reasoning beside `completion_tokens`, in the total; responses inside the answer."""
        found = openai_usage(usage)
        if found is None:
            return None
        total, prompt, answer = count(usage, "total_tokens"), found.prompt_tokens, found.completion_tokens
        beside = "completion_tokens" in usage and (prompt is None or answer is None or total != prompt + answer)
        if answer is not None and beside:
            found = found._replace(completion_tokens=answer + (found.reasoning_tokens or 0))
        return found._replace(reported_usd=usd(usage, "cost_in_usd_ticks", TICKS_PER_USD))
