"""How sure an estimate is that was made in several rounds on several questions. Pure.

An effect (a log ratio, or a difference) was measured in R rounds on the same Q questions. It is to hold for further
rounds and for further questions, so both are random factors, and its variance has three parts:

    rounds:     what the questions of a round share: the machine's luck, the arrivals
    questions:  what a question brings with it into every round: a config suits some questions better than others
    residual:   the rest, different in every round on every question

The spread between rounds alone estimates (rounds + residual), that between questions alone (questions + residual), so
the variance of the mean is the one plus the other, less the residual that is in both (Cameron, Gelbach & Miller,
"Robust Inference with Multiway Clustering", 2011), and the interval is Student's t with the degrees of freedom that
Satterthwaite's formula gives to such a sum ("An Approximate Distribution of Estimates of Variance Components", 1946).
It is never shorter than that of the rounds alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

POWER = 0.8
"""With what probability an effect is to be found that is called detectable; what is usual."""
MOST_ROUNDS = 200
_SPENT = 0.75


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the interval that holds the truth with the given confidence.

    Attributes:
        estimate: of a gain: relative, or a difference.
        low: lower end.
        high: upper end.
        confidence: 0 to 1.
        is_difference: whether a gain is a difference, in the metric's own unit, and not relative.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    is_difference: bool = False


@dataclass(frozen=True, slots=True)
class Spread:
    """The variance of a mean effect, by what it comes from.

    Attributes:
        rounds: estimated from the rounds; the residual is in it.
        questions: estimated from the questions; the residual is in it.
        residual: what is in both.
        n_rounds: rounds measured, at least 2.
        n_questions: questions asked, at least 2.
    """

    rounds: float
    questions: float
    residual: float
    n_rounds: int
    n_questions: int

    def after(self, n_rounds: int) -> Spread:
        """What it would be after another number of rounds on the same questions."""
        share = self.n_rounds / n_rounds
        lasting = self.questions - self.residual
        return Spread(
            self.rounds * share, lasting + self.residual * share, self.residual * share, n_rounds, self.n_questions
        )

    @property
    def standard_error(self) -> float:
        """Square root of the variance; never less than rounds or questions alone would make it."""
        return math.sqrt(max(self.rounds, self.questions, self.rounds + self.questions - self.residual))

    @property
    def degrees_of_freedom(self) -> float:
        """Satterthwaite's, at least the smaller one of the rounds' and the questions'."""
        r, q = self.n_rounds - 1, self.n_questions - 1
        uncertain = self.rounds**2 / r + self.questions**2 / q + self.residual**2 / (r * q)
        return max(self.standard_error**4 / uncertain, min(r, q)) if uncertain else r

    def half_width(self, confidence: float) -> float:
        """Half the length of the interval around the effect."""
        from scipy.special import stdtrit

        level = (1 + confidence) / 2
        both = float(stdtrit(self.degrees_of_freedom, level)) * self.standard_error
        # Never less than that of the rounds alone: where the luck of few rounds decides, Satterthwaite's formula gives
        # most degrees of freedom when the rounds happen to be alike, and the truth is missed too often.
        return max(both, float(stdtrit(self.n_rounds - 1, level)) * math.sqrt(self.rounds))

    def detectable(self, confidence: float) -> float:
        """The smallest effect whose interval lies above zero with a probability of 80 %."""
        from scipy.special import nctdtrinc

        if not self.standard_error:
            return 0.0
        t = self.half_width(confidence) / self.standard_error
        return float(nctdtrinc(self.degrees_of_freedom, 1 - POWER, t)) * self.standard_error

    def rounds_to_show(self, effect: float, confidence: float) -> int | None:
        """Rounds in all in which an effect would be found with a probability of 80 %; `None`: over 200, or never."""
        for n_rounds in range(self.n_rounds + 1, MOST_ROUNDS + 1):
            if self.after(n_rounds).detectable(confidence) <= effect:
                return n_rounds
        return None


def spread_of(replicates: Array, n_questions: int) -> Spread:
    """The spread of the mean over rounds.

    Args:
        replicates: rounds x replicates of the effect: in the first column as measured, in the others each with other
            weights of the questions, scaled such that their deviations' squares sum up to a variance.
        n_questions: how many questions there are.
    """
    n_rounds = len(replicates)
    measured, others = replicates[:, 0], replicates[:, 1:]
    off = others - others.mean(axis=1, keepdims=True)
    shared = off.mean(axis=0)
    return Spread(
        rounds=float(measured.var(ddof=1)) / n_rounds,
        questions=float((shared**2).sum()),
        residual=float(((off - shared) ** 2).sum()) / (n_rounds * (n_rounds - 1)),
        n_rounds=n_rounds,
        n_questions=n_questions,
    )


def interval_of_mean(values: Array, confidence: float) -> tuple[float, float, float]:
    """Mean of one figure a round and the ends of its t interval."""
    from scipy.special import stdtrit

    mean = float(values.mean())
    n = len(values)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def confidence_of_look(confidence: float, look: int) -> float:
    """The confidence of the n-th verdict on the same study, such that all of them together are wrong as rarely as said.

    Measuring more rounds because the first verdict was not the hoped-for one is another chance to be wrong. So each
    verdict spends three quarters of the error that is left: most for the first, for most sweeps have only one.

    Args:
        confidence: of all verdicts together, 0.5 to 1.
        look: 1 for the first verdict.
    """
    return 1 - (1 - confidence) * _SPENT * (1 - _SPENT) ** (look - 1)


def confidence_of_each(confidence: float, comparisons: int) -> float:
    """The confidence that each of several comparisons needs for all to hold together.

    Bonferroni's: it holds however the comparisons depend on each other. Dunnett's intervals, made for several arms
    against one, would be 1 % shorter with two arms, but want the same variance and degrees of freedom in all of them.
    """
    return 1 - (1 - confidence) / max(1, comparisons)


def question_weights(n_questions: int, *, leave_one_out: bool, seed: int = 0, draws: int = 400) -> tuple[Array, Any]:
    """Weights of questions for the replicates of `spread_of`, all 1 in the first row, and the scale of deviations.

    Args:
        n_questions: at least 2.
        leave_one_out: each question left out once (the jackknife), exact for what is smooth, as means are. Otherwise
            questions drawn with replacement (the bootstrap), which is right for percentiles, too.
        seed: of the draws.
        draws: how many.
    """
    ones = np.ones((1, n_questions))
    if leave_one_out:
        return np.concatenate([ones, 1 - np.eye(n_questions)]), math.sqrt((n_questions - 1) / n_questions)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_questions, np.full(n_questions, 1 / n_questions), size=draws)
    return np.concatenate([ones, drawn]), math.sqrt(n_questions / (n_questions - 1) / (draws - 1))
