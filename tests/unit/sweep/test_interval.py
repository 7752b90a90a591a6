"""Variance components, t intervals and what they say of further rounds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nat_dynamo_plugin.sweep.interval import (
    Spread,
    confidence_of_each,
    confidence_of_look,
    interval_of_mean,
    question_weights,
    spread_of,
)


def test_mean_of_rounds_has_students_interval() -> None:
    values = np.array([1.0, 1.2, 0.9, 1.4])
    low, high = stats.t.interval(0.9, 3, loc=values.mean(), scale=stats.sem(values))
    assert interval_of_mean(values, 0.9) == pytest.approx((values.mean(), low, high))


def effects(rng: np.random.Generator, rounds: float, questions: float, residual: float) -> np.ndarray:
    """Effects of 6 rounds x 30 questions with three sources of variance."""
    return rng.normal(0, rounds, (6, 1)) + rng.normal(0, questions, (1, 30)) + rng.normal(0, residual, (6, 30))


def replicated(table: np.ndarray, *, leave_one_out: bool) -> np.ndarray:
    weights, scale = question_weights(table.shape[1], leave_one_out=leave_one_out)
    means = (table @ weights.T) / weights.sum(axis=1)
    means[:, 1:] *= scale
    return means


@pytest.mark.parametrize("leave_one_out", [True, False])
@pytest.mark.parametrize("parts", [(0.1, 0.0, 0.2), (0.0, 0.2, 0.2), (0.1, 0.2, 0.2)])
def test_components_are_found(leave_one_out: bool, parts: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(1)
    found = [spread_of(replicated(effects(rng, *parts), leave_one_out=leave_one_out), 30) for _ in range(400)]
    per_round, per_question, residual = (sd**2 / n for sd, n in zip(parts, (6, 30, 180), strict=True))
    # Means over 400 tables have a standard error of 4 % at most.
    assert np.mean([one.rounds for one in found]) == pytest.approx(per_round + residual, rel=0.12)
    assert np.mean([one.questions for one in found]) == pytest.approx(per_question + residual, rel=0.12)
    assert np.mean([one.residual for one in found]) == pytest.approx(residual, rel=0.12)


def test_variance_is_of_both_factors_without_the_residual_twice() -> None:
    assert Spread(4.0, 3.0, 1.0, 5, 40).standard_error ** 2 == pytest.approx(6.0)
    # An estimate below what one factor alone makes it is not believed.
    assert Spread(4.0, 1.0, 2.0, 5, 40).standard_error ** 2 == pytest.approx(4.0)


def test_degrees_of_freedom_are_of_what_dominates() -> None:
    assert Spread(1.0, 0.0, 0.0, 5, 40).degrees_of_freedom == pytest.approx(4)
    assert Spread(0.0, 1.0, 0.0, 5, 40).degrees_of_freedom == pytest.approx(39)
    both = Spread(1.0, 1.0, 0.0, 5, 40)
    assert both.degrees_of_freedom == pytest.approx(4 / (1 / 4 + 1 / 39))
    assert Spread(0.0, 0.0, 0.0, 5, 40).half_width(0.95) == 0.0


def test_half_width_is_students() -> None:
    assert Spread(0.01, 0.0, 0.0, 5, 40).half_width(0.95) == pytest.approx(0.1 * stats.t.ppf(0.975, 4))
    assert Spread(0.0, 0.01, 0.0, 5, 40).half_width(0.95) == pytest.approx(0.1 * stats.t.ppf(0.975, 39))


def test_questions_never_make_the_interval_shorter_than_rounds_alone_do() -> None:
    # Both parts the same, and the rounds' few degrees of freedom would be lost in the sum.
    assert Spread(0.01, 0.01, 0.0, 3, 40).half_width(0.95) == pytest.approx(0.1 * stats.t.ppf(0.975, 2))


def test_detectable_effect_is_found_in_four_of_five() -> None:
    spread = Spread(0.01, 0.0, 0.0, 5, 40)
    effect = spread.detectable(0.95)
    rng = np.random.default_rng(2)
    rounds = effect + rng.normal(0, 0.1 * np.sqrt(5), (20_000, 5))
    t = rounds.mean(axis=1) / stats.sem(rounds, axis=1)
    assert np.mean(t > stats.t.ppf(0.975, 4)) == pytest.approx(0.8, abs=0.01)


def test_more_rounds_show_smaller_effects() -> None:
    spread = Spread(0.01, 0.0, 0.0, 5, 40)
    needed = spread.rounds_to_show(0.12, 0.95)
    assert needed is not None and needed > 5
    assert spread.after(needed).detectable(0.95) <= 0.12 < spread.after(needed - 1).detectable(0.95)
    assert spread.after(20).standard_error == pytest.approx(spread.standard_error / 2)


def test_no_number_of_rounds_makes_up_for_too_few_questions() -> None:
    spread = Spread(0.01, 0.011, 0.001, 5, 40)
    assert spread.after(10**9).standard_error == pytest.approx(0.1)
    assert spread.rounds_to_show(0.2, 0.95) is None


def test_all_verdicts_together_spend_the_error_once() -> None:
    errors = [1 - confidence_of_look(0.9, look) for look in range(1, 30)]
    assert errors[0] == pytest.approx(0.075)
    assert errors == sorted(errors, reverse=True)
    assert 0.0999 < sum(errors) <= 0.1


def test_several_finalists_each_need_more_confidence() -> None:
    assert confidence_of_each(0.95, 1) == pytest.approx(0.95)
    assert confidence_of_each(0.95, 5) == pytest.approx(0.99)
