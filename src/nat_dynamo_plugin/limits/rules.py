"""Rules as `limits:` has them, and what a call costs by them. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, inf
from typing import Literal

from nat_dynamo_plugin.plan.prompt_size import PromptSize
from nat_dynamo_plugin.telemetry.record import CallRecord

Unit = Literal["requests", "tokens", "usd"]
Part = Literal["org", "key", "model"]

MICRO_USD = 1_000_000
"""What counts as 1 in a store of whole numbers is a millionth of a USD."""
OUTPUT_TOKENS = 256
"""What an answer is taken for that nobody has bounded, before a model has answered."""
_MEMORY = 0.1
"""Weight of the newest answer in what is learned."""
_LEARNED = 5
"""Answers after which an estimate is trusted more than `max_tokens`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """So much of something in a window of time.

    Attributes:
        unit: what is counted.
        most: how much of it fits into a window; for `usd` in USD.
        window_s: the window's length, in whole seconds.
        by: what has a count of its own; nothing for one count for all calls of the server.
    """

    unit: Unit
    most: float
    window_s: int
    by: tuple[Part, ...] = ()

    @property
    def whole(self) -> int:
        """`most` as stores count it."""
        return round(self.most * MICRO_USD) if self.unit == "usd" else int(self.most)

    def __str__(self) -> str:
        amount = f"{self.most:g} USD" if self.unit == "usd" else f"{self.most:,.0f} {self.unit}"
        return f"{amount} in {self.window_s} s" + (f" by {' and '.join(self.by)}" if self.by else "")


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call takes of a rule.

    Attributes:
        rule: which.
        name: whose count, by the rule's `by`; never a name in clear.
        amount: in the rule's unit; for `usd` in millionths.
    """

    rule: Rule
    name: str
    amount: int


def charges(
    rules: tuple[Rule, ...], names: Mapping[Part, str], amounts: Mapping[Unit, int | None]
) -> tuple[Charge, ...]:
    """What a call takes of each rule."""
    return tuple(
        Charge(rule, "|".join(names.get(part, "") for part in rule.by), amounts.get(rule.unit) or 0) for rule in rules
    )


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window's counts: the one that runs, and the one before, which counts less and less.

    Attributes:
        before: counted in the window before.
        before_s: until that is forgotten (s).
        now: counted in the window that runs.
        now_s: until that is forgotten (s): its rest, and one window more.
        length_s: a window's length.
    """

    before: int
    before_s: float
    now: int
    now_s: float
    length_s: float

    @property
    def count(self) -> float:
        """What counts at this moment."""
        return self.before * self.before_s / self.length_s + self.now

    @property
    def age_s(self) -> float:
        """Since when the window runs (s)."""
        return max(0.0, 2.0 * self.length_s - self.now_s) if self.now_s else 0.0

    def wait_s(self, amount: int, most: int) -> float:
        """Seconds until so much fits in, if nobody takes anything before; infinite if it never does."""
        if amount > most:
            return inf
        over = floor(self.count) + amount - most
        if over <= 0:
            return 0.0
        if self.before and self.now + amount <= most:
            return min(self.before_s, over * self.length_s / self.before)
        # Not before this window is the one before, and has been forgotten in part.
        turn = max(0.0, self.now_s - self.length_s)
        too_much = self.now + amount - most
        return turn + min(self.length_s, max(0.0, too_much * self.length_s / self.now))


_NUMBER = re.compile(rb"\s*:\s*(\d{1,9})")


def _field(body: bytes, *names: bytes) -> int | None:
    """A number that a request has under one of these names; searched for, since parsing a long body takes longer."""
    for name in names:
        at = body.rfind(b'"%s"' % name)
        if at > 0 and body[at - 1] != ord("\\"):  # else it stands in a text
            found = _NUMBER.match(body, at + len(name) + 2)
            if found is not None:
                return int(found[1])
    return None


class Estimates:
    """What calls of a model take, learned from its answers."""

    def __init__(self) -> None:
        self._answers = 0
        self._prompt = PromptSize()
        self._output = 0.0
        self._spread = 0.0
        self._usd = 0.0

    def tokens(self, body: bytes | None) -> int:
        """The tokens that a call will take, prompt and answer, rather too many than too few."""
        if body is None:
            return OUTPUT_TOKENS
        return max(1, round(self._prompt.tokens(body) + self._output_tokens(body)))

    def _output_tokens(self, body: bytes) -> float:
        given = _field(body, b"max_tokens", b"max_completion_tokens", b"max_output_tokens")
        choices = max(1, _field(body, b"n") or 1)
        if self._answers < _LEARNED:
            return choices * (OUTPUT_TOKENS if given is None else given)
        expected = self._output + 2.0 * self._spread
        return choices * (expected if given is None else min(given, expected))

    @property
    def micro_usd(self) -> int:
        """What a call costs, by the last ones."""
        return round(self._usd)

    def learn(self, record: CallRecord, size: int, micro_usd: int | None) -> None:
        """Take in an answer: the record, the body's size in bytes, and what it cost."""
        if micro_usd is not None:
            self._usd = micro_usd if not self._usd else self._usd + _MEMORY * (micro_usd - self._usd)
        if not record.prompt_tokens or record.completion_tokens is None:
            return
        self._answers += 1
        weight = max(_MEMORY, 1.0 / self._answers)
        self._prompt.learn(size, record.prompt_tokens)
        off = record.completion_tokens - self._output
        self._output += weight * off
        self._spread += weight * (abs(off) - self._spread)


def real_tokens(record: CallRecord, cached_weight: float) -> int | None:
    """What a call took, if its server said so; cached tokens count by their weight (0 to 1)."""
    if record.prompt_tokens is None and record.completion_tokens is None:
        return None
    cached = min(record.cached_tokens or 0, record.prompt_tokens or 0)
    prompt = (record.prompt_tokens or 0) - cached * (1.0 - cached_weight)
    return round(prompt + (record.completion_tokens or 0))
