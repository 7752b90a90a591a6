"""What measurements say: values of runs, gains against the current config, and how sure they are. Pure.

A run yields for each metric the samples of each question (see `evaluators.metric`). Gains are computed as effects that
are symmetric: the log of the ratio of candidate and current config, or their difference for a share, which may be 0,
where a ratio makes no sense. They are positive where the candidate is better, and shown relative to the current config:
0.25 is 25 % less latency, or 25 % more throughput, or 25 points more reuse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nat_dynamo_plugin.evaluators.metric import Metric, Sample, Statistic, aggregate
from nat_dynamo_plugin.sweep.interval import Array, Interval, Spread, interval_of_mean, question_weights, spread_of
from nat_dynamo_plugin.sweep.limits import MIN_ROUNDS

MIN_QUESTIONS = 2

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

    def compares_by_difference(self, *values: Array | float) -> bool:
        """Whether a ratio of these values makes no sense: they are shares, or not all above 0."""
        return self.unit == "share" or any(not np.all(np.asarray(one) > 0) for one in values)

    def effect(self, candidate: Array, baseline: Array, *, difference: bool) -> Array:
        """The effect against the baseline, positive where better: a log ratio, or a difference."""
        sign = -1.0 if self.direction == "minimize" else 1.0
        effect: Array = sign * (candidate - baseline if difference else np.log(candidate) - np.log(baseline))
        return effect

    def shown(self, value: float) -> str:
        """A value with its unit."""
        return f"{value:.1%}" if self.unit == "share" else f"{value:.4g} {self.unit}".rstrip()

    def shown_gain(self, gain: float, *, difference: bool) -> str:
        """A gain with its unit and sign."""
        if not difference:
            return f"{gain:+.1%}"
        return f"{100 * gain:+.1f} points" if self.unit == "share" else f"{gain:+.4g} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class _Scale:
    """How an effect is shown as a gain."""

    difference: bool
    lower_is_better: bool

    def gain(self, effect: float) -> float:
        if self.difference:
            return effect
        return -math.expm1(-effect) if self.lower_is_better else math.expm1(effect)

    def effect(self, gain: float) -> float:
        """The effect of a gain; infinite for what no ratio is."""
        if self.difference:
            return gain
        inside = 1 - gain if self.lower_is_better else 1 + gain
        logged = math.log(inside) if inside > 0 else -math.inf
        return -logged if self.lower_is_better else logged

    def interval(self, effect: float, half: float, confidence: float) -> Interval:
        low, high = self.gain(effect - half), self.gain(effect + half)
        return Interval(self.gain(effect), low, high, confidence, self.difference)


def _scale_of_all(objectives: Sequence[Objective], differences: Sequence[bool]) -> _Scale:
    """The scale of the weighted effect: of one objective its own; else a relative gain, as if of one figure."""
    return _Scale(
        difference=all(differences) and len(objectives) == 1,
        lower_is_better=any(o.direction == "minimize" for o in objectives),
    )


def _weighted(objectives: Sequence[Objective], effects: Sequence[Array]) -> Array:
    weights = [o.weight / sum(other.weight for other in objectives) for o in objectives]
    total: Array = sum(w * e for w, e in zip(weights, effects, strict=True))  # type: ignore[assignment]
    return total


def weighted_gain(objectives: Sequence[Objective], candidate: Sequence[float], baseline: Sequence[float]) -> float:
    """The gain that the mean of the objectives' effects by their weights comes to."""
    differences = [o.compares_by_difference(c, b) for o, c, b in zip(objectives, candidate, baseline, strict=True)]
    effects = [
        o.effect(np.array(c, float), np.array(b, float), difference=d)
        for o, c, b, d in zip(objectives, candidate, baseline, differences, strict=True)
    ]
    return _scale_of_all(objectives, differences).gain(float(_weighted(objectives, effects)))


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


Outcome = Literal["better", "no better", "worse", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against the current config.

    Attributes:
        values: the candidate's value of each objective: the mean over rounds (of positive values the geometric one),
            with the interval in which the mean over many such rounds on the same questions lies.
        baseline: the current config's.
        gains: the gain in each objective, with an interval for further rounds and further questions of the kind.
        overall: the weighted gain; with one objective the same as its gain.
        by_round: the weighted gain of each round.
        rounds: rounds that both were measured in.
        questions: questions that both answered, in some round at least.
        effect: what `overall` shows: a weighted mean of log ratios, or differences.
        spread: of the effect.
    """

    values: tuple[Interval, ...]
    baseline: tuple[Interval, ...]
    gains: tuple[Interval, ...]
    overall: Interval
    by_round: tuple[float, ...]
    rounds: int
    questions: int
    effect: float
    spread: Spread
    scale: _Scale = field(repr=False)

    def outcome(self, smallest_gain: float) -> Outcome:
        """What the interval says, where gains below the smallest one are not worth having."""
        if self.overall.low > 0:
            return "better"
        if self.overall.high < 0:
            return "worse"
        return "no better" if self.overall.high < smallest_gain else "inconclusive"

    @property
    def detectable(self) -> float:
        """The smallest gain that so many rounds show with a probability of 80 %."""
        return self.scale.gain(self.spread.detectable(self.overall.confidence))

    def rounds_to_show(self, gain: float, confidence: float) -> int | None:
        """Rounds in all that would show a gain with a probability of 80 %; `None`: more than 200, or no number."""
        return self.spread.rounds_to_show(self.scale.effect(gain), confidence)


def compare(
    objectives: Sequence[Objective],
    candidate: Sequence[Sequence[QuestionSamples]],
    baseline: Sequence[Sequence[QuestionSamples]],
    *,
    confidence: float = 0.95,
) -> Comparison:
    """Compare two configs that were run once in each round, close in time, on the same questions.

    A round's effect is that of its two values, each the objective's statistic (mean, p50 or p95) over the samples of
    those questions that both answered in it. The gain is the mean of the rounds' effects, and its interval is one for
    this statistic, on further rounds and on further questions of the kind (see `interval`).

    Args:
        objectives: what is compared.
        candidate: for each round, for each objective, the samples by question.
        baseline: the same for the current config, the same rounds in the same order.
        confidence: of the intervals, 0.5 to 1.

    Raises:
        ValueError: if the rounds differ in number, or there are fewer than three, or fewer than two questions were
            answered by both in some round.
    """
    n_rounds = len(candidate)
    if n_rounds != len(baseline) or n_rounds < MIN_ROUNDS:
        raise ValueError(f"{n_rounds} and {len(baseline)} rounds: {MIN_ROUNDS} are needed, and as many of both")
    questions = sorted({question for run in candidate for one in run for question in one})
    columns = {question: k for k, question in enumerate(questions)}
    # What is smooth has the jackknife; one percentile among the objectives, and all are drawn alike.
    weights, scaling = question_weights(
        max(len(questions), MIN_QUESTIONS), leave_one_out=all(o.statistic == "mean" for o in objectives)
    )
    values, currents, gains, effects, differences = [], [], [], [], []
    for k, objective in enumerate(objectives):
        ours, theirs = _paired([run[k] for run in candidate], [run[k] for run in baseline])
        theirs_values = _replicates(objective.statistic, theirs, columns, weights)
        ours_values = _replicates(objective.statistic, ours, columns, weights)
        difference = objective.compares_by_difference(ours_values, theirs_values)
        effect = objective.effect(ours_values, theirs_values, difference=difference)
        values.append(_value(ours_values[:, 0], confidence))
        currents.append(_value(theirs_values[:, 0], confidence))
        gains.append(_gain(_Scale(difference, objective.direction == "minimize"), effect, scaling, weights, confidence))
        effects.append(effect)
        differences.append(difference)
    overall = _weighted(objectives, effects)
    scale = _scale_of_all(objectives, differences)
    return Comparison(
        values=tuple(values),
        baseline=tuple(currents),
        gains=tuple(gains),
        overall=_gain(scale, overall, scaling, weights, confidence),
        by_round=tuple(scale.gain(float(one)) for one in overall[:, 0]),
        rounds=n_rounds,
        questions=len(questions),
        effect=float(overall[:, 0].mean()),
        spread=_spread(overall, scaling, weights),
        scale=scale,
    )


def _paired(
    ours: Sequence[QuestionSamples], theirs: Sequence[QuestionSamples]
) -> tuple[list[QuestionSamples], list[QuestionSamples]]:
    """The samples of each round on those questions that both answered in it."""
    sides: tuple[list[QuestionSamples], list[QuestionSamples]] = ([], [])
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        both = [question for question in one if one[question] and other.get(question)]
        if len(both) < MIN_QUESTIONS:
            raise ValueError(f"in round {number}, {len(both)} questions were answered in both runs: 2 are needed")
        sides[0].append({question: one[question] for question in both})
        sides[1].append({question: other[question] for question in both})
    return sides


def _replicates(
    statistic: Statistic, rounds: Sequence[QuestionSamples], columns: Mapping[str, int], weights: Array
) -> Array:
    """Rounds x weights: the statistic over a round's samples, each counted as often as its question weighs."""
    if statistic != "mean":
        return np.array([_percentiles({"p50": 0.5, "p95": 0.95}[statistic], one, columns, weights) for one in rounds])
    amounts, of = np.zeros((2, len(rounds), weights.shape[1]))
    for i, one in enumerate(rounds):
        for question, samples in one.items():
            amounts[i, columns[question]] = sum(s.amount for s in samples)
            of[i, columns[question]] = sum(s.of for s in samples)
    means: Array = (amounts @ weights.T) / (of @ weights.T)
    return means


def _percentiles(share: float, samples: QuestionSamples, columns: Mapping[str, int], weights: Array) -> Array:
    """A percentile for each row of whole weights, linearly interpolated between neighbours as `aggregate` does."""
    pairs = sorted((s.value, columns[question]) for question, one in samples.items() for s in one)
    ranked = np.array([value for value, _ in pairs])
    counted = np.cumsum(weights[:, [column for _, column in pairs]], axis=1)
    place = share * (counted[:, -1:] - 1)
    # The first whose count is above the place's floor stands there.
    low = (counted > np.floor(place)).argmax(axis=1)
    high = (counted > np.ceil(place)).argmax(axis=1)
    between: Array = ranked[low] + (place - np.floor(place))[:, 0] * (ranked[high] - ranked[low])
    return between


def _spread(effects: Array, scaling: float, weights: Array) -> Spread:
    measured = effects[:, :1]
    return spread_of(np.concatenate([measured, effects[:, 1:] * scaling], axis=1), weights.shape[1])


def _gain(scale: _Scale, effects: Array, scaling: float, weights: Array, confidence: float) -> Interval:
    half = _spread(effects, scaling, weights).half_width(confidence)
    return scale.interval(float(effects[:, 0].mean()), half, confidence)


def _value(rounds: Array, confidence: float) -> Interval:
    if np.all(rounds > 0):
        mean, low, high = (math.exp(one) for one in interval_of_mean(np.log(rounds), confidence))
    else:
        mean, low, high = interval_of_mean(rounds, confidence)
    return Interval(mean, low, high, confidence)
