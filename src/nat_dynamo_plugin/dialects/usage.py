"""What a server says that a call has used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Usage(NamedTuple):
    """Tokens of one call; `None` where the server does not say.

    Attributes:
        prompt_tokens: tokens of the prompt, those found in a cache included.
        cached_tokens: tokens of the prompt that were found in a cache.
        completion_tokens: tokens of the answer.
    """

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


def openai_usage(usage: Mapping[str, Any]) -> Usage | None:
    """Usage as OpenAI's chat completions, completions and responses name it; `None` if nothing of it is there.

    Read tolerantly: a value of another type than expected counts as not said.
    """
    prompt, answer = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    details = usage.get("prompt_tokens_details")
    if prompt is None:
        prompt = _count(usage, "input_tokens")
    if answer is None:
        answer = _count(usage, "output_tokens")
    if not isinstance(details, Mapping):
        details = usage.get("input_tokens_details")
    found = Usage(prompt, _count(details, "cached_tokens") if isinstance(details, Mapping) else None, answer)
    return None if found == Usage() else found


def _count(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
