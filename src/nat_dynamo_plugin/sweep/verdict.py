"""What measurements say: values of runs, gains against the current config, and how sure they are. Pure.

A run yields for each metric the samples of each question (see `evaluators.metric`). A gain is relative to the current
config, and positive where the candidate is better: 0.25 is 25 % less latency, or 25 % more reuse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from nat_dynamo_plugin.evaluators.metric import Metric, Sample, Statistic, aggregate

N_RESAMPLES = 4000
MIN_ROUNDS = 2

QuestionSamples = Mapping[str, Sequence[Sample]]
"""Samples of one metric in one run, by question id."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One metric of `optimizer.eval_metrics`.

    Attributes:
        name: its key there.
        evaluator: the evaluator it reads.
        direction: where better is.
        weight: its weight in the weighted gain, above 0.
        statistic: what is made of the samples of all questions.
        unit: unit of its values, for people.
        metric: what gives its samples; `None` for an evaluator that is not of this package.
    """

    name: str
    evaluator: str
    direction: Literal["minimize", "maximize"]
    weight: float = 1.0
    statistic: Statistic = "mean"
    unit: str = ""
    metric: Metric | None = field(default=None, repr=False, compare=False)

    def gain(self, candidate: float, baseline: float) -> float:
        """The relative gain of a value over the baseline's; absolute if the baseline is 0."""
        better = baseline - candidate if self.direction == "minimize" else candidate - baseline
        return better / (abs(baseline) or 1.0)

    def shown(self, value: float) -> str:
        """A value with its unit."""
        return f"{value:.1%}" if self.unit == "share" else f"{value:.4g} {self.unit}".rstrip()


def weighted_gain(objectives: Sequence[Objective], candidate: Sequence[float], baseline: Sequence[float]) -> float:
    """The mean of the objectives' gains by their weights."""
    gains = [o.weight * o.gain(c, b) for o, c, b in zip(objectives, candidate, baseline, strict=True)]
    return sum(gains) / sum(o.weight for o in objectives)


def partial_ratio(
    objectives: Sequence[Objective],
    candidate: Sequence[QuestionSamples],
    baseline: Sequence[QuestionSamples],
) -> float | None:
    """The weighted gain on those questions that both have: how a run that is not over compares so far."""
    values: list[tuple[float, float]] = []
    for objective, ours, theirs in zip(objectives, candidate, baseline, strict=True):
        both = [question for question in ours if ours[question] and theirs.get(question)]
        ours_value = aggregate([s for q in both for s in ours[q]], objective.statistic)
        theirs_value = aggregate([s for q in both for s in theirs[q]], objective.statistic)
        if ours_value is None or theirs_value is None:
            return None
        values.append((ours_value, theirs_value))
    return weighted_gain(objectives, [c for c, _ in values], [b for _, b in values])


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the interval that holds the truth with the given confidence."""

    estimate: float
    low: float
    high: float
    confidence: float

    @property
    def clear_of_zero(self) -> bool:
        """Whether all of the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


class _Arm:
    """The samples of one config: rounds x questions, in arrays for fast resampling."""

    def __init__(self, rounds: Sequence[QuestionSamples], questions: Sequence[str], statistic: Statistic) -> None:
        self.statistic = statistic
        samples = [[list(one.get(question, ())) for question in questions] for one in rounds]
        self.samples = samples
        # Sums suffice for means.
        self.amounts = np.array([[math.fsum(s.amount for s in q) for q in r] for r in samples])
        self.of = np.array([[math.fsum(s.of for s in q) for q in r] for r in samples])
        width = max((len(q) for r in samples for q in r), default=1) or 1
        values = np.full((len(rounds), len(questions), width), np.nan)
        for i, one in enumerate(samples):
            for j, question in enumerate(one):
                values[i, j, : len(question)] = [s.value for s in question]
        self.values = values

    def value(self, rounds: npt.NDArray[np.int64], questions: npt.NDArray[np.int64]) -> float:
        cells = np.ix_(rounds, questions)
        if self.statistic == "mean":
            return float(self.amounts[cells].sum() / self.of[cells].sum())
        # Of each round its own percentile: rounds are repetitions, not more questions.
        percent = {"p50": 50, "p95": 95}[self.statistic]
        return float(np.mean([np.nanpercentile(self.values[r][questions], percent) for r in rounds]))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against the current config.

    Attributes:
        values: the candidate's value of each objective, over all rounds, with the interval in which a further
            measurement on such questions is to be expected.
        baseline: the current config's.
        gains: the gain in each objective.
        overall: the weighted gain; with one objective the same as its gain.
        rounds: rounds that both were measured in.
        questions: questions that both answered in all of them.
    """

    values: tuple[Interval, ...]
    baseline: tuple[Interval, ...]
    gains: tuple[Interval, ...]
    overall: Interval
    rounds: int
    questions: int


def compare(
    objectives: Sequence[Objective],
    candidate: Sequence[Sequence[QuestionSamples]],
    baseline: Sequence[Sequence[QuestionSamples]],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Comparison:
    """Compare two configs by a paired bootstrap over rounds and questions.

    Both configs were run once in each round, close in time, on the same questions. A resample draws rounds with
    replacement, and questions with replacement, the same ones for both configs, and recomputes the gains; the interval
    is between percentiles of the resamples. Rounds are drawn, too, because questions of one run share its luck: a
    bootstrap over questions alone takes the noise between runs for an effect. (Davison & Hinkley, "Bootstrap Methods
    and their Application", 1997, sections 2.4 and 3.8.)

    Args:
        objectives: what is compared.
        candidate: for each round, for each objective, the samples by question.
        baseline: the same for the current config, the same rounds in the same order.
        confidence: of the interval, 0.5 to 1.
        seed: of the resampling.
        n_resamples: how many resamples.

    Raises:
        ValueError: if the rounds differ in number, or there are fewer than two, or no question is common to all.
    """
    rounds = len(candidate)
    if rounds != len(baseline) or rounds < MIN_ROUNDS:
        raise ValueError(f"{rounds} and {len(baseline)} rounds: at least {MIN_ROUNDS} are needed, and as many of both")
    runs = [*candidate, *baseline]
    questions = [question for question in runs[0][0] if all(one.get(question) for run in runs for one in run)]
    if not questions:
        raise ValueError("no question was answered in every run")
    arms = [
        tuple(_Arm([run[k] for run in side], questions, o.statistic) for side in (candidate, baseline))
        for k, o in enumerate(objectives)
    ]

    def figures(r: npt.NDArray[np.int64], q: npt.NDArray[np.int64]) -> list[float]:
        ours = [arm.value(r, q) for arm, _ in arms]
        theirs = [arm.value(r, q) for _, arm in arms]
        gains = [o.gain(c, b) for o, c, b in zip(objectives, ours, theirs, strict=True)]
        return [*ours, *theirs, *gains, weighted_gain(objectives, ours, theirs)]

    estimates = figures(np.arange(rounds), np.arange(len(questions)))
    rng = np.random.default_rng(seed)
    drawn = np.array(
        [
            figures(rng.integers(0, rounds, rounds), rng.integers(0, len(questions), len(questions)))
            for _ in range(n_resamples)
        ]
    )
    tail = 50 * (1 - confidence)
    lows, highs = np.percentile(drawn, [tail, 100 - tail], axis=0)
    intervals = [
        Interval(float(e), float(low), float(high), confidence)
        for e, low, high in zip(estimates, lows, highs, strict=True)
    ]
    n = len(objectives)
    return Comparison(
        values=tuple(intervals[:n]),
        baseline=tuple(intervals[n : 2 * n]),
        gains=tuple(intervals[2 * n : 3 * n]),
        overall=intervals[-1],
        rounds=rounds,
        questions=len(questions),
    )


def confidence_of_each(confidence: float, candidates: int) -> float:
    """The confidence each of several comparisons needs for all to hold together (Bonferroni)."""
    return 1 - (1 - confidence) / max(1, candidates)
