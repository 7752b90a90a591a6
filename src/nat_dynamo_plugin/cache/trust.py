"""Whether answers to almost equal questions may be given: while their error is shown to be small. No I/O in here."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

logger = logging.getLogger(__name__)

CONFIDENCE = 0.95
WINDOW = 500
"""Comparisons that count, the latest ones."""


def upper_bound(wrong: int, n: int, confidence: float = CONFIDENCE) -> float:
    """The exact one-sided upper bound of an error rate (Clopper and Pearson, 1934).

    Args:
        wrong: errors seen.
        n: comparisons, independent.
        confidence: probability that the bound holds.
    """
    if wrong >= n:
        return 1.0
    low, high = wrong / n, 1.0
    for _ in range(60):
        rate = (low + high) / 2.0
        if _at_most(wrong, n, rate) > 1.0 - confidence:
            low = rate
        else:
            high = rate
    return high


def _at_most(wrong: int, n: int, rate: float) -> float:
    """Probability of at most so many errors."""
    if rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 0.0
    terms = (
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(rate)
        + (n - k) * math.log1p(-rate)
        for k in range(wrong + 1)
    )
    return math.fsum(map(math.exp, terms))


class Standing(NamedTuple):
    """What is known.

    Attributes:
        compared: comparisons that count.
        wrong: those of them in which the other answer would have been given.
        bound: upper bound of the error rate, 0 to 1.
        serves: whether answers are given.
    """

    compared: int
    wrong: int
    bound: float
    serves: bool


class Trust:
    """Compares what would have been given with what came, and says whether it may be given.

    Args:
        mode: `shadow` never gives any.
        max_error: answers are given while the bound of the error rate is below this, 0 to 1.
        audit: share of them, 0 to 1, that is sent and compared all the same, drawn at random.
        draw: uniform in 0 to 1.
    """

    def __init__(
        self,
        mode: Literal["shadow", "serve"],
        max_error: float,
        audit: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._mode = mode
        self._max_error = max_error
        self._audit = audit
        self._draw = draw
        self._right: deque[bool] = deque(maxlen=WINDOW)
        self._lock = threading.Lock()
        self._serves = False

    def may_give(self) -> bool:
        """Whether an answer may be given now; asked once a call, for some are to be compared."""
        return self._serves and self._draw() >= self._audit

    def compared(self, *, right: bool) -> None:
        """A fresh answer was compared with the one that was there."""
        with self._lock:
            self._right.append(right)
            standing = self._standing()
            good = standing.bound < self._max_error
            if self._mode != "serve" or good is self._serves:
                return
            self._serves = good
            if not good:
                self._right.clear()  # it has to be shown anew
        logger.warning(
            "Answers to almost equal questions are given %s: %d of %d wrong, at most %.2f %% with %.0f %% confidence",
            "from now on" if good else "no more",
            standing.wrong,
            standing.compared,
            standing.bound * 100.0,
            CONFIDENCE * 100.0,
        )

    @property
    def standing(self) -> Standing:
        """What is known now."""
        with self._lock:
            return self._standing()

    def _standing(self) -> Standing:
        n, wrong = len(self._right), self._right.count(False)
        return Standing(n, wrong, upper_bound(wrong, n) if n else 1.0, self._serves)
