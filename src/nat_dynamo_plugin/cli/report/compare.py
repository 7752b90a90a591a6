"""Two runs side by side: what changed, how sure that is, and which settings differ. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nat_dynamo_plugin.cli.report.figures import ttfts
from nat_dynamo_plugin.cli.report.run import Asked, Run

CONFIDENCE = 0.95
_LEAST_PAIRS = 3
_OF_THE_RUN = ("eval.general.output.", "eval.general.output_dir")
"""Settings that say where a run is kept, and not how it was made."""

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How a figure changed from one run to another, over the questions that both have.

    Attributes:
        name: of the figure.
        unit: of `before` and `after`.
        before: mean over the pairs.
        after: likewise.
        estimate: the geometric mean of the ratios, less 1; of a share or a score the mean difference.
        low: lower end of its interval.
        high: upper end.
        pairs: questions that have the figure in both runs.
        is_difference: whether it is a difference and no ratio.
        better: the direction of improvement; `None`: nobody knows.
    """

    name: str
    unit: str
    before: float
    after: float
    estimate: float
    low: float
    high: float
    pairs: int
    is_difference: bool
    better: Better | None

    @property
    def verdict(self) -> Literal["better", "worse", "changed", "no difference shown"]:
        """What the interval says: nothing if zero is in it."""
        if self.low <= 0 <= self.high:
            return "no difference shown"
        if self.better is None:
            return "changed"
        return "better" if (self.estimate > 0) == (self.better == "higher") else "worse"


def _latency(asked: Asked) -> float | None:
    return asked.seconds


def _ttft(asked: Asked) -> float | None:
    values = ttfts(asked.calls)
    return sum(values) / len(values) if values else None


def _counts(asked: Asked) -> tuple[int, int] | None:
    known = [
        (call.record.prompt_tokens, call.record.cached_tokens)
        for call in asked.calls
        if not call.record.failed and call.record.prompt_tokens is not None and call.record.cached_tokens is not None
    ]
    return (sum(p for p, _ in known), sum(c for _, c in known)) if known else None


def _new(asked: Asked) -> float | None:
    counts = _counts(asked)
    return float(counts[0] - counts[1]) if counts else None


def _reuse(asked: Asked) -> float | None:
    counts = _counts(asked)
    return counts[1] / counts[0] if counts and counts[0] else None


_FIGURES: tuple[tuple[str, str, Better, Callable[[Asked], float | None]], ...] = (
    ("question latency", "s", "lower", _latency),
    ("time to first token", "ms", "lower", _ttft),
    ("prompt tokens computed", "tokens", "lower", _new),
    ("KV reuse", "share", "higher", _reuse),
)


def compare(before: Run, after: Run) -> list[Change]:
    """The changes that can be computed: each needs three questions or more that both runs answered."""
    found = []
    for name, unit, better, figure in _FIGURES:
        pairs = _paired(_values(before, figure), _values(after, figure))
        found.append(_change(name, unit, pairs, better, is_difference=unit == "share"))
    ours = {row.name for run in (before, after) for row in run.summary.metrics if row.unit}
    for name in before.scores:
        if name not in ours and name in after.scores:
            pairs = _paired(before.scores[name], after.scores[name])
            found.append(_change(name, "", pairs, None, is_difference=True))
    return [one for one in found if one is not None]


def _values(run: Run, figure: Callable[[Asked], float | None]) -> dict[str, float]:
    """A figure of each answered question; the mean of those that have the same id."""
    found: dict[str, list[float]] = {}
    for asked in run.questions:
        if asked.failure is None and (value := figure(asked)) is not None:
            found.setdefault(asked.id, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def _paired(before: Mapping[str, float], after: Mapping[str, float]) -> list[tuple[float, float]]:
    return [(value, after[name]) for name, value in before.items() if name in after]


def _change(
    name: str, unit: str, pairs: list[tuple[float, float]], better: Better | None, *, is_difference: bool
) -> Change | None:
    from nat_dynamo_plugin.sweep.interval import interval_of_mean

    if not is_difference:
        pairs = [(a, b) for a, b in pairs if a > 0 and b > 0]
    if len(pairs) < _LEAST_PAIRS:
        return None
    effects = np.array([b - a if is_difference else math.log(b / a) for a, b in pairs])
    ends = [float(end) for end in interval_of_mean(effects, CONFIDENCE)]
    estimate, low, high = ends if is_difference else [math.expm1(end) for end in ends]
    return Change(
        name=name,
        unit=unit,
        before=sum(a for a, _ in pairs) / len(pairs),
        after=sum(b for _, b in pairs) / len(pairs),
        estimate=estimate,
        low=low,
        high=high,
        pairs=len(pairs),
        is_difference=is_difference,
        better=better,
    )


def settings_that_differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Settings that the two configs do not have in common: name, before, after; `-` where there is none."""
    one, other = dict(_flat(before)), dict(_flat(after))
    return [
        (name, one.get(name, "-"), other.get(name, "-"))
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name) and not name.startswith(_OF_THE_RUN)
    ]


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    inner: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        inner = [(str(key), one) for key, one in value.items()]
    elif isinstance(value, list):
        inner = [(str(n), one) for n, one in enumerate(value)]
    if not inner:
        return [(name, "" if value is None else str(value))]
    return [pair for key, one in inner for pair in _flat(one, f"{name}.{key}" if name else key)]
