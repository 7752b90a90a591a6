"""Prices of tokens, and what the tokens of a call come to. Never a guess: what has no price makes no cost."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from nat_dynamo_plugin.telemetry.record import CallRecord

logger = logging.getLogger(__name__)

MILLION = 1_000_000


class Unpriced(Exception):
    """Something of a call has no price; says what."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of one model, in USD for a million tokens.

    Attributes:
        input: prompt tokens that were neither cached nor written to a cache.
        output: tokens of the answer.
        cache_read: cached prompt tokens.
        cache_write: prompt tokens written to a cache.
        cache_writes: the same by lifetime, where it costs more to keep them longer.
        reasoning: tokens of the answer that were reasoning; as `output` where it is not given.
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    cache_writes: Mapping[str, float] = field(default_factory=dict)
    reasoning: float | None = None

    def cost_usd(self, record: CallRecord) -> float:
        """What the tokens of a call cost, in USD.

        Raises:
            Unpriced: for a call whose tokens are not known, or of a kind that has no price here.
        """
        split = split_of(record)
        total = split.uncached * self.input + split.reasoning * (
            self.output if self.reasoning is None else self.reasoning
        )
        total += split.spoken * self.output
        if split.cached is None:
            if self.cache_read not in (None, self.input):
                raise Unpriced(
                    "the server does not say how many tokens were cached, and those have a price of their own"
                )
        elif split.cached:
            total += split.cached * _price(self.cache_read, "cache_read")
        for lifetime, tokens in split.writes.items():
            price = self.cache_writes.get(lifetime, self.cache_write)
            total += tokens * _price(price, f"cache_writes: {{{lifetime}: ...}}" if lifetime else "cache_write")
        return total / MILLION


@dataclass(frozen=True, slots=True)
class Split:
    """The tokens of a call, each counted once.

    Attributes:
        uncached: of the prompt, neither cached nor written to a cache.
        cached: of the prompt, out of a cache; `None` if the server does not say.
        writes: of the prompt, written to a cache, by lifetime; under an empty one those whose lifetime is not said.
        spoken: of the answer, without its reasoning.
        reasoning: of the answer.
    """

    uncached: int
    cached: int | None
    writes: Mapping[str, int]
    spoken: int
    reasoning: int


def split_of(record: CallRecord) -> Split:
    """The tokens of a call apart.

    Raises:
        Unpriced: if they are not known, or contradict each other.
    """
    prompt, answer = record.prompt_tokens, record.completion_tokens
    if prompt is None or answer is None:
        raise Unpriced("the server does not say how many tokens were used")
    writes = {lifetime: tokens for lifetime, tokens in record.cache_writes.items() if tokens}
    rest = (record.cache_write_tokens or 0) - sum(writes.values())
    if rest > 0:
        writes[""] = rest
    uncached = prompt - (record.cached_tokens or 0) - sum(writes.values())
    reasoning = record.reasoning_tokens or 0
    if uncached < 0 or reasoning > answer:
        raise Unpriced("more tokens were cached, written or reasoned with than there were in all")
    return Split(uncached, record.cached_tokens, writes, answer - reasoning, reasoning)


def _price(price: float | None, name: str) -> float:
    if price is None:
        raise Unpriced(f"there is no price `{name}`")
    return price
