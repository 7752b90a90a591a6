"""Numbers that decay: means with their spread, and how many calls questions make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_CALLS = 256
"""Longest question told apart, in calls; longer ones count as that long."""
DECAY = 0.998
"""What a question still counts when the next one ends: the last 500 or so make up most of the numbers."""


class Mean:
    """An exponentially decaying mean and spread."""

    __slots__ = ("squares", "total", "weight")

    def __init__(self, weight: float = 0.0, total: float = 0.0, squares: float = 0.0) -> None:
        self.weight, self.total, self.squares = weight, total, squares

    def add(self, value: float) -> None:
        """Count one more."""
        self.weight = self.weight * DECAY + 1.0
        self.total = self.total * DECAY + value
        self.squares = self.squares * DECAY + value * value

    @property
    def mean(self) -> float | None:
        """The mean; `None` of nothing."""
        return self.total / self.weight if self.weight else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation; `None` of nothing."""
        if not self.weight:
            return None
        mean = self.total / self.weight
        return math.sqrt(max(0.0, self.squares / self.weight - mean * mean))


class Calls:
    """A decaying distribution of calls a question."""

    __slots__ = ("_survivors", "weights")

    def __init__(self, weights: Mapping[int, float] | None = None) -> None:
        self.weights: dict[int, float] = dict(weights or {})
        self._survivors: list[tuple[float, float]] | None = None

    def add(self, calls: int) -> None:
        """Count a question of so many calls, 1 or more."""
        for length in self.weights:
            self.weights[length] *= DECAY
        length = min(calls, MAX_CALLS)
        self.weights[length] = self.weights.get(length, 0.0) + 1.0
        if self.weights and min(self.weights.values()) < 1e-3:
            self.weights = {length: weight for length, weight in self.weights.items() if weight >= 1e-3}
        self._survivors = None

    @property
    def questions(self) -> float:
        """Questions seen, decayed."""
        return sum(self.weights.values())

    def beyond(self, calls: int) -> tuple[float, float]:
        """Weight of the questions with more than `calls` calls, and the sum of their calls beyond that, so weighted."""
        table = self._survivors
        if table is None:
            table = self._survivors = self._table()
        return table[calls] if calls < len(table) else (0.0, 0.0)

    def _table(self) -> list[tuple[float, float]]:
        longest = max(self.weights, default=0)
        table = [(0.0, 0.0)] * (longest + 1)
        weight = excess = 0.0
        for calls in range(longest - 1, -1, -1):
            weight += self.weights.get(calls + 1, 0.0)
            excess += weight
            table[calls] = (weight, excess)
        return table


class Group:
    """What is known of one path, or of one kind of question there."""

    __slots__ = ("calls", "gaps", "tokens")

    def __init__(self) -> None:
        self.calls = Calls()
        self.tokens = Mean()
        self.gaps = Mean()

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        data: dict[str, Any] = {"calls": {str(k): round(v, 4) for k, v in sorted(self.calls.weights.items())}}
        for name, mean in (("output_tokens", self.tokens), ("interarrival_ms", self.gaps)):
            data[name] = [round(mean.weight, 4), round(mean.total, 4), round(mean.squares, 4)]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Group:
        """From what `to_dict` gave.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: it is something else.
        """
        group = cls()
        weights = {int(calls): float(weight) for calls, weight in data["calls"].items()}
        if any(not 1 <= calls <= MAX_CALLS or not 0 <= weight < math.inf for calls, weight in weights.items()):
            raise ValueError("a number of calls or its weight is out of range")
        group.calls = Calls(weights)
        group.tokens = Mean(*map(_finite, data["output_tokens"]))
        group.gaps = Mean(*map(_finite, data["interarrival_ms"]))
        return group


def _finite(value: Any) -> float:
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{value!r} is no finite number of 0 or more")
    return number
