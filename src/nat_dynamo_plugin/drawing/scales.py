"""From values to places on an axis, and the ticks of an axis. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear or logarithmic axis.

    Attributes:
        low: the value at `begin`; above 0 on a logarithmic axis.
        high: the value at `end`; above `low`.
        begin: the place of `low`, in the drawing's units.
        end: the place of `high`.
        logarithmic: whether equal ratios take equal room.
    """

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    @classmethod
    def over(
        cls, values: Sequence[float], begin: float, end: float, *, logarithmic: bool = False, zero: bool = False
    ) -> Scale:
        """The axis that holds all values, `zero` too if asked; one value alone stands in its middle."""
        finite = [value for value in values if math.isfinite(value) and (value > 0 or not logarithmic)]
        low, high = (min(finite), max(finite)) if finite else (1.0, 10.0)
        if zero and not logarithmic:
            low, high = min(low, 0.0), max(high, 0.0)
        if low == high:
            low, high = (low / 2, high * 2) if logarithmic else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
        return cls(low, high, begin, end, logarithmic)

    def place(self, value: float) -> float:
        """Where a value stands; what is outside the axis stands at its end."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values on the axis, at most about so many."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = [step * 10.0**decade for decade in decades for step in steps]
                inside = [value for value in found if self.low <= value <= self.high]
                if len(inside) <= about:
                    break
            if len(inside) > 1:
                return inside if len(inside) <= about else inside[:: math.ceil(len(inside) / about)]
        return _round_values(self.low, self.high, about)


def _round_values(low: float, high: float, about: int) -> list[float]:
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5, 10) if factor * power >= rough), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A tick's label: `0.5`, `20`, `3k`."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.4g}M"
    if size >= 1e4:
        return f"{value / 1e3:.4g}k"
    return f"{value:.4g}"
