"""What a server says that a call has used, in one normal form whatever the provider.

The normal form: the prompt's tokens are all of them, cached and written ones included, and the answer's include its
reasoning. Providers differ in both, so only a dialect, which knows the provider, may read its `usage`; nothing is
concluded from the size of the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nat_dynamo_plugin.telemetry.record import Usage

__all__ = ["Usage", "cache_writes", "count", "details", "openai_usage", "usd"]


def openai_usage(usage: Mapping[str, Any]) -> Usage | None:
    """Usage as OpenAI's chat completions, completions and responses name it; `None` if nothing of it is there.

    Cached and written tokens are inside the prompt's, reasoning is inside the answer's. Read tolerantly: a value of
    another type than expected counts as not said.
    """
    prompt, answer = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
    asked, answered = details(usage, "prompt_tokens_details"), details(usage, "completion_tokens_details")
    if prompt is None:
        prompt = count(usage, "input_tokens")
    if answer is None:
        answer = count(usage, "output_tokens")
    found = Usage(
        prompt_tokens=prompt,
        cached_tokens=count(asked or details(usage, "input_tokens_details"), "cached_tokens"),
        completion_tokens=answer,
        cache_write_tokens=count(asked or details(usage, "input_tokens_details"), "cache_write_tokens"),
        cache_writes=cache_writes(asked or details(usage, "input_tokens_details")),
        reasoning_tokens=count(answered or details(usage, "output_tokens_details"), "reasoning_tokens"),
    )
    return None if found == Usage() else found


def cache_writes(asked: Mapping[str, Any]) -> dict[str, int] | None:
    """Written tokens by lifetime, of OpenAI's `input_tokens_details`; `None` if they are not told apart."""
    by_lifetime = details(asked, "cache_write_tokens_details")
    found = {ttl: count(by_lifetime, f"ttl_{ttl}_tokens") for ttl in ("30m", "12h")}
    return {ttl: tokens for ttl, tokens in found.items() if tokens} or None


def details(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object inside an object; an empty one if there is none."""
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def count(values: Mapping[str, Any], name: str) -> int | None:
    """A number of tokens; `None` for what is none."""
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def usd(values: Mapping[str, Any], name: str, per_usd: float = 1.0) -> float | None:
    """An amount of money in USD; `None` for what is none.

    Args:
        values: the object.
        name: the member with the amount.
        per_usd: how many of its units a USD has.
    """
    value = values.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
        return None
    return value / per_usd
