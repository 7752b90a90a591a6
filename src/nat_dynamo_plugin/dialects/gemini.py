"""Gemini: caches by itself. Usage in its own words, in those of its Interactions API, or in OpenAI's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nat_dynamo_plugin.dialects.provider import ProviderDialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.dialects.usage import Usage, count, openai_usage
from nat_dynamo_plugin.plan.serving import ServingPlan


class Gemini(ProviderDialect):
    """Says nothing."""

    name = "gemini"
    provider = "gcp.gemini"
    needs_plan = False

    def say(self, plan: ServingPlan) -> Said:
        """Nothing."""
        return Said()

    def read_usage(self, usage: Mapping[str, Any]) -> Usage | None:
        """Cached tokens are inside the prompt's, thoughts outside the answer's. No cached tokens said means none."""
        if "promptTokenCount" in usage:
            return _apart(
                usage, "promptTokenCount", "cachedContentTokenCount", "candidatesTokenCount", "thoughtsTokenCount"
            )
        if "total_input_tokens" in usage:
            return _apart(
                usage, "total_input_tokens", "total_cached_tokens", "total_output_tokens", "total_thought_tokens"
            )
        found, total = openai_usage(usage), count(usage, "total_tokens")
        if found is None or found.prompt_tokens is None or found.completion_tokens is None:
            return found
        # In OpenAI's form thoughts are in the total alone.
        answer = max(found.completion_tokens, (total or 0) - found.prompt_tokens)
        thoughts = found.reasoning_tokens or answer - found.completion_tokens
        return found._replace(
            cached_tokens=found.cached_tokens or 0, completion_tokens=answer, reasoning_tokens=thoughts
        )


def _apart(usage: Mapping[str, Any], prompt: str, cached: str, answer: str, thoughts: str) -> Usage:
    thought = count(usage, thoughts) or 0
    return Usage(
        prompt_tokens=count(usage, prompt),
        cached_tokens=count(usage, cached) or 0,
        completion_tokens=(count(usage, answer) or 0) + thought,
        reasoning_tokens=thought,
    )
