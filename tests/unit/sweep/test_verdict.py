"""Gains and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nat_dynamo_plugin.evaluators.metric import Sample, Statistic, aggregate
from nat_dynamo_plugin.sweep.verdict import Objective, compare, partial_ratio, weighted_gain

LATENCY = Objective("latency", "latency", "minimize")
SPEED = Objective("speed", "speed", "maximize")
REUSE = Objective("reuse", "reuse", "maximize", weight=3.0, unit="share")

Run = list[dict[str, list[Sample]]]


def runs(
    seed: int, factor: float = 1.0, rounds: int = 5, questions: int = 40, luck: float = 0.0, suits: float = 0.0
) -> list[Run]:
    """Runs of questions that differ in length, with noise.

    `luck` is what all questions of a run share, `suits` what a question has in all runs of this config.
    """
    rng = np.random.default_rng(seed)
    lengths = np.random.default_rng(0).lognormal(0, 0.5, questions) * rng.lognormal(0, suits, questions)
    return [
        [
            {
                f"q{k}": [Sample(float(length * factor * shared * rng.lognormal(0, 0.1)))]
                for k, length in enumerate(lengths)
            }
        ]
        for shared in rng.lognormal(0, luck, rounds)
    ]


def constant(*rounds: float, questions: int = 4) -> list[Run]:
    """Runs in which all questions have the same value."""
    return [[{f"q{k}": [Sample(value)] for k in range(questions)}] for value in rounds]


def test_gain_is_relative_and_positive_where_better() -> None:
    assert weighted_gain([LATENCY], [0.75], [1.0]) == pytest.approx(0.25)
    assert weighted_gain([SPEED], [0.9], [0.6]) == pytest.approx(0.5)


def test_gain_of_a_share_or_from_zero_is_a_difference() -> None:
    assert weighted_gain([REUSE], [0.9], [0.6]) == pytest.approx(0.3)
    assert weighted_gain([REUSE], [0.2], [0.0]) == pytest.approx(0.2)
    assert weighted_gain([SPEED], [0.2], [0.0]) == pytest.approx(0.2)
    assert weighted_gain([LATENCY], [0.0], [0.2]) == pytest.approx(0.2)
    found = compare([SPEED], constant(0.0, 0.2, 0.4), constant(0.1, 0.1, 0.1)).overall
    assert found.is_difference and found.estimate == pytest.approx(0.1)
    assert not compare([SPEED], constant(0.1, 0.2, 0.4), constant(0.1, 0.1, 0.1)).overall.is_difference


def test_weighted_gain_is_a_weighted_mean_of_logs() -> None:
    heavy = Objective("speed", "speed", "maximize", weight=3.0)
    expected = 1 - math.exp(-(math.log(2) + 3 * math.log(1.1)) / 4)
    assert weighted_gain([LATENCY, heavy], [0.5, 1.1], [1.0, 1.0]) == pytest.approx(expected)
    # Twice as good in one and half as good in the other is nothing.
    assert weighted_gain([LATENCY, SPEED], [0.5, 0.5], [1.0, 1.0]) == pytest.approx(0)


def test_weights_count_in_a_comparison() -> None:
    heavy = Objective("speed", "speed", "maximize", weight=3.0)
    ours = [[one[0], one[0]] for one in constant(0.5, 0.5, 0.5)]
    theirs = [[one[0], one[0]] for one in constant(1.0, 1.0, 1.0)]
    found = compare([LATENCY, heavy], ours, theirs)
    assert [gain.estimate for gain in found.gains] == pytest.approx([0.5, -0.5])
    assert found.overall.estimate == pytest.approx(1 - math.exp(math.log(2) / 2))
    assert found.effect == pytest.approx(-math.log(2) / 2)


def test_interval_is_students_over_the_rounds_log_ratios() -> None:
    # All questions alike, so rounds are all that varies.
    ours, theirs = (0.8, 1.0, 0.7, 0.9), (1.0, 1.1, 0.9, 1.3)
    found = compare([LATENCY], constant(*ours), constant(*theirs), confidence=0.9)
    ratios = np.log(ours) - np.log(theirs)
    low, high = stats.t.interval(0.9, 3, loc=ratios.mean(), scale=stats.sem(ratios))
    expected = (1 - math.exp(ratios.mean()), 1 - math.exp(high), 1 - math.exp(low))
    assert (found.overall.estimate, found.overall.low, found.overall.high) == pytest.approx(expected)
    assert found.overall == found.gains[0]
    assert found.by_round == pytest.approx([1 - a / b for a, b in zip(ours, theirs, strict=True)])
    assert (found.rounds, found.questions) == (4, 4)


def test_rounds_are_paired() -> None:
    # A machine that slows down from round to round, for both alike: nothing is uncertain about the ratio.
    theirs = (1.0, 2.0, 4.0)
    found = compare([LATENCY], constant(*(0.9 * one for one in theirs)), constant(*theirs))
    assert (found.overall.low, found.overall.high) == pytest.approx((0.1, 0.1))
    # The values are uncertain, and their interval says so.
    logs = np.log(theirs)
    low, high = stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs))
    assert found.baseline[0].estimate == pytest.approx(2.0)
    assert (found.baseline[0].low, found.baseline[0].high) == pytest.approx((math.exp(low), math.exp(high)))
    assert found.values[0].estimate == pytest.approx(1.8)


def test_questions_that_a_config_suits_widen_the_interval() -> None:
    calm = compare([LATENCY], runs(1), runs(2)).overall
    uneven = compare([LATENCY], runs(1, suits=0.3), runs(2, suits=0.3)).overall
    assert uneven.high - uneven.low > 2 * (calm.high - calm.low)


def share(right: list[bool]) -> float:
    return sum(right) / len(right)


@pytest.mark.parametrize(("luck", "suits"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.3), (0.1, 0.3)])
@pytest.mark.parametrize("rounds", [3, 8])
def test_is_as_rarely_wrong_as_it_says(luck: float, suits: float, rounds: int) -> None:
    found = [
        compare(
            [LATENCY],
            runs(2 * k, 0.8, rounds, 25, luck, suits),
            runs(2 * k + 1, 1.0, rounds, 25, luck, suits),
            confidence=0.8,
        ).overall
        for k in range(150)
    ]
    # Of 150, 120 are expected to hold the truth, with a standard deviation of 5; the seeds are fixed.
    assert share([one.low <= 0.2 <= one.high for one in found]) >= 0.72
    assert share([one.low > 0.2 for one in found]) <= 0.18
    assert share([one.high < 0.2 for one in found]) <= 0.18


@pytest.mark.parametrize("statistic", ["mean", "p50", "p95"])
def test_a_round_has_the_objectives_statistic(statistic: Statistic) -> None:
    objective = Objective("latency", "latency", "minimize", statistic=statistic)
    ours, theirs = runs(1, 0.5, rounds=4), runs(2, rounds=4)
    for side in (ours, theirs):  # several calls a question, as many as it likes
        for one in side:
            one[0]["q3"] = [Sample(0.1), Sample(9.0), Sample(7.0)]
    found = compare([objective], ours, theirs)
    for k in range(4):
        pooled = [aggregate([s for q in side[k][0].values() for s in q], statistic) for side in (ours, theirs)]
        assert pooled[0] is not None and pooled[1] is not None
        assert found.by_round[k] == pytest.approx(1 - pooled[0] / pooled[1])


def test_percentiles_have_wider_intervals_than_means() -> None:
    sides = runs(1, suits=0.2), runs(2, suits=0.2)
    p95 = Objective("latency", "latency", "minimize", statistic="p95")
    mean, tail = (compare([o], *sides).overall for o in (LATENCY, p95))
    assert tail.high - tail.low > 1.3 * (mean.high - mean.low)


def test_shares_are_pooled_over_tokens() -> None:
    side = [[{"a": [Sample(90, 100)], "b": [Sample(0, 900)]}]] * 3
    found = compare([REUSE], side, side)
    assert found.values[0].estimate == pytest.approx(0.09)
    assert found.overall.estimate == 0


def test_only_questions_that_both_answered_in_a_round_count_in_it() -> None:
    ours, theirs = constant(1.0, 1.0, 1.0), constant(2.0, 2.0, 2.0)
    ours[0][0]["q0"] = [Sample(100.0)]
    theirs[0][0]["q0"] = []
    theirs[1][0]["only here"] = [Sample(100.0)]
    found = compare([LATENCY], ours, theirs)
    assert found.by_round == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize(("ours", "theirs"), [(2, 2), (4, 3)])
def test_too_few_rounds_are_refused(ours: int, theirs: int) -> None:
    with pytest.raises(ValueError, match="3 are needed"):
        compare([LATENCY], runs(1, rounds=ours), runs(2, rounds=theirs))


def test_too_few_common_questions_are_refused() -> None:
    theirs = constant(1.0, 1.0, 1.0)
    theirs[2] = [{"q0": [Sample(1.0)], "another": [Sample(1.0)]}]
    with pytest.raises(ValueError, match="round 2, 1 questions"):
        compare([LATENCY], constant(1.0, 1.0, 1.0), theirs)


@pytest.mark.parametrize(
    ("factors", "outcome"),
    [
        ((0.80, 0.81, 0.79, 0.80), "better"),
        ((1.20, 1.21, 1.19, 1.20), "worse"),
        ((1.00, 1.01, 0.99, 1.00), "no better"),
        ((0.80, 1.20, 0.90, 1.10), "inconclusive"),
        # The estimate is a gain of 10 %, but the interval holds 0.
        ((0.80, 1.00, 0.85, 0.95), "inconclusive"),
    ],
)
def test_outcome_is_of_the_interval(factors: tuple[float, ...], outcome: str) -> None:
    found = compare([LATENCY], constant(*factors), constant(1.0, 1.0, 1.0, 1.0))
    assert found.outcome(0.05) == outcome


def test_rounds_that_would_show_a_gain_do() -> None:
    found = compare([LATENCY], constant(0.80, 1.00, 0.85, 0.95), constant(1.0, 1.0, 1.0, 1.0))
    assert found.detectable > 0.1
    needed = found.rounds_to_show(0.1, 0.95)
    assert needed is not None and needed > 4
    assert found.spread.after(needed).detectable(0.95) <= -math.log(0.9)
    assert found.rounds_to_show(found.detectable, 0.95) == 5


def test_a_part_is_compared_on_the_same_questions() -> None:
    baseline = [{"short": [Sample(1.0)], "long": [Sample(9.0)]}]
    # The short question alone: as good as before, though far below the mean of all.
    assert partial_ratio([LATENCY], [{"short": [Sample(1.0)]}], baseline) == 0
    assert partial_ratio([LATENCY], [{"short": [Sample(2.0)], "new": [Sample(9.0)]}], baseline) == pytest.approx(-1)
    assert partial_ratio([LATENCY], [{"new": [Sample(2.0)]}], baseline) is None


def test_gains_are_shown_in_their_unit() -> None:
    assert LATENCY.shown_gain(0.123, difference=False) == "+12.3%"
    assert REUSE.shown_gain(-0.123, difference=True) == "-12.3 points"
