"""A retry budget: however many callers a server has, retries add little to what it has to bear. No I/O, no lock."""

from __future__ import annotations

RATE = 10.0
"""Retries a second that are always there, so that a few callers are never short (Finagle's default)."""
RESERVE = 100.0
"""What is there in the beginning: ten seconds of that (Finagle's window)."""
MAX_BALANCE = 500.0
"""The most that is saved up (botocore's)."""


class RetryBudget:
    """A token bucket as Finagle's: each call adds a share of a retry, each retry takes one.

    Args:
        ratio: retries a call adds, above 0; .2 lets retries be a fifth of the calls.
        now: seconds of any clock that does not go back.
    """

    def __init__(self, ratio: float, now: float) -> None:
        self._ratio = ratio
        self._balance = RESERVE
        self._at = now

    def call(self) -> None:
        """A call is made, retries not counted."""
        if self._balance < MAX_BALANCE:
            self._balance += self._ratio

    def take(self, now: float) -> bool:
        """Take a retry out; whether there was one."""
        if self._balance < RESERVE:
            self._balance = min(RESERVE, self._balance + RATE * (now - self._at))
        self._at = now
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True
