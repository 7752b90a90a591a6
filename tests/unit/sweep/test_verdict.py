"""Gains and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from nat_dynamo_plugin.evaluators.metric import Sample
from nat_dynamo_plugin.sweep.verdict import Objective, compare, confidence_of_each, partial_ratio, weighted_gain

LATENCY = Objective("latency", "latency", "minimize")
P95 = Objective("p95", "p95", "minimize", statistic="p95")
REUSE = Objective("reuse", "reuse", "maximize", weight=3.0)

Run = list[dict[str, list[Sample]]]


def runs(seed: int, factor: float = 1.0, rounds: int = 5, questions: int = 40, luck: float = 0.0) -> list[Run]:
    """Runs of questions that differ in length, with noise; `luck` is what all questions of a run share."""
    rng = np.random.default_rng(seed)
    lengths = np.random.default_rng(0).lognormal(0, 0.5, questions)
    return [
        [
            {
                f"q{k}": [Sample(float(length * factor * shared * rng.lognormal(0, 0.1)))]
                for k, length in enumerate(lengths)
            }
        ]
        for shared in rng.lognormal(0, luck, rounds)
    ]


def test_gain_is_relative_and_positive_where_better() -> None:
    assert LATENCY.gain(0.75, 1.0) == pytest.approx(0.25)
    assert REUSE.gain(0.9, 0.6) == pytest.approx(0.5)
    assert REUSE.gain(0.2, 0.0) == pytest.approx(0.2)


def test_weighted_gain_weighs() -> None:
    assert weighted_gain([LATENCY, REUSE], [0.5, 0.6], [1.0, 0.6]) == pytest.approx(0.5 / 4)


def test_finds_an_effect_and_its_size() -> None:
    found = compare([LATENCY], runs(1, 0.7), runs(2))
    assert found.overall.clear_of_zero
    assert found.overall.low < 0.3 < found.overall.high
    assert found.overall == found.gains[0]
    # A further measurement lies in the interval of the value.
    further = np.mean([s[0].value for s in runs(3, 0.7, rounds=1)[0][0].values()])
    assert found.values[0].low < further < found.values[0].high
    assert found.values[0].high < found.baseline[0].estimate
    assert (found.rounds, found.questions) == (5, 40)


def test_is_rarely_sure_of_an_effect_that_is_not_there() -> None:
    # Runs that share their luck: over questions alone, most of these would be "significant".
    wrong = sum(
        compare([LATENCY], runs(k, luck=0.1), runs(1000 + k, luck=0.1), n_resamples=300).overall.clear_of_zero
        for k in range(60)
    )
    assert wrong <= 15


def test_covers_the_true_gain_mostly() -> None:
    inside = 0
    for k in range(60):
        overall = compare([LATENCY], runs(k, 0.8, luck=0.03), runs(500 + k, luck=0.03), n_resamples=300).overall
        inside += overall.low <= 0.2 <= overall.high
    assert inside >= 48


def test_percentiles_are_of_each_round() -> None:
    found = compare([P95], runs(1, 0.5), runs(2))
    expected = np.mean([np.percentile([s[0].value for s in one[0].values()], 95) for one in runs(1, 0.5)])
    assert found.values[0].estimate == pytest.approx(expected)


def test_shares_are_pooled_over_tokens() -> None:
    side = [[{"a": [Sample(90, 100)], "b": [Sample(0, 900)]}]] * 2
    found = compare([REUSE], side, side)
    assert found.values[0].estimate == pytest.approx(0.09)
    assert found.overall.estimate == 0


def test_the_seed_decides_the_interval() -> None:
    first, again, other = (compare([LATENCY], runs(1), runs(2), seed=s, n_resamples=200) for s in (1, 1, 2))
    assert first == again
    assert first.overall.low != other.overall.low


def test_only_questions_of_every_run_count() -> None:
    ours, theirs = runs(1, questions=5), runs(2, questions=5)
    del ours[0][0]["q0"]
    assert compare([LATENCY], ours, theirs).questions == 4


@pytest.mark.parametrize(("ours", "theirs"), [(1, 1), (3, 2)])
def test_too_few_rounds_are_refused(ours: int, theirs: int) -> None:
    with pytest.raises(ValueError, match="rounds"):
        compare([LATENCY], runs(1, rounds=ours), runs(2, rounds=theirs))


def test_a_part_is_compared_on_the_same_questions() -> None:
    baseline = [{"short": [Sample(1.0)], "long": [Sample(9.0)]}]
    # The short question alone: as good as before, though far below the mean of all.
    assert partial_ratio([LATENCY], [{"short": [Sample(1.0)]}], baseline) == 0
    assert partial_ratio([LATENCY], [{"short": [Sample(2.0)], "new": [Sample(9.0)]}], baseline) == -1
    assert partial_ratio([LATENCY], [{"new": [Sample(2.0)]}], baseline) is None


def test_several_finalists_each_need_more_confidence() -> None:
    assert confidence_of_each(0.95, 1) == pytest.approx(0.95)
    assert confidence_of_each(0.95, 5) == pytest.approx(0.99)
