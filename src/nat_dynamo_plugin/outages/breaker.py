"""A circuit breaker: a server that fails again and again is left alone for a while, then probed. No I/O, no lock.

The libraries there are let every waiting call through as a probe (purgatory, circuitbreaker), count only failures in a
row (all but one), or hold a lock while a call is made (pybreaker); and none can be told that an answer broke after its
headers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

_BUCKETS: Final = 10
MAX_OPEN_S = 5.0
"""Longest time between two probes (s), unless `open_s` is longer: those who wait for a server would miss its return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When a breaker opens, and when it looks again.

    Attributes:
        failure_rate: share of failed calls that opens it, above 0 to 1.
        min_calls: calls within the window below which it stays closed.
        window_s: how far back it looks, in seconds.
        open_s: seconds until the first probe.
        probes: calls that are let through at a time to see whether the server is back; as many must succeed.
    """

    failure_rate: float = 0.5
    min_calls: int = 5
    window_s: float = 10.0
    open_s: float = 2.0
    probes: int = 1


class Outcome(Enum):
    """What came of a call."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEITHER = "neither"
    """It says nothing about the server: cancelled, or refused for overload, which a server is alive for."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to make one call; to be settled once.

    Attributes:
        era: how often the breaker had opened or closed when it was given.
        is_probe: whether the breaker waits to hear of it.
    """

    era: int
    is_probe: bool


class Breaker:
    """The state of one server. Times are seconds of any clock that does not go back.

    Attributes:
        is_open: whether calls are held back, or probes are under way.
        opened: how often it opened.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._width = settings.window_s / _BUCKETS
        self._buckets: dict[int, list[int]] = {}  # number of the time slice: successes, failures
        self._ticket = Ticket(0, False)
        self._next_probe = 0.0
        self._failed_probes = 0
        self._probes_out = 0
        self._probes_good = 0
        self.is_open = False
        self.opened = 0

    @property
    def ticket(self) -> Ticket:
        """What `admit` gives while it is closed."""
        return self._ticket

    def admit(self, now: float) -> Ticket | float:
        """Leave to make a call, or the seconds until it is worth while to ask again (0: a probe is under way)."""
        if not self.is_open:
            return self._ticket
        if now < self._next_probe:
            return self._next_probe - now
        if self._probes_out + self._probes_good >= self._settings.probes:
            return 0.0
        self._probes_out += 1
        return Ticket(self._ticket.era, True)

    def settle(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        """What came of a call. One that was made before the breaker last opened or closed changes nothing."""
        if ticket.era != self._ticket.era:
            return
        if ticket.is_probe:
            self._probes_out -= 1
            if outcome is Outcome.FAILURE:
                self._failed_probes += 1
                self._open(now)
            elif outcome is Outcome.SUCCESS:
                self._probes_good += 1
                if self._probes_good >= self._settings.probes:
                    self._close()
        elif outcome is not Outcome.NEITHER:
            self._count(outcome is Outcome.FAILURE, now)

    def answered(self, now: float) -> bool:
        """Count a success that is no probe's; whether it could be done without a lock: threads may lose a count, no
        more. What begins a slice of time is for `settle`."""
        bucket = self._buckets.get(int(now / self._width))
        if bucket is None:
            return False
        bucket[0] += 1
        return True

    def failures(self, now: float) -> tuple[int, int]:
        """Failed calls and all calls within the window."""
        oldest = int(now / self._width) - _BUCKETS
        counts = [count for number, count in self._buckets.items() if number > oldest]
        failed = sum(failures for _, failures in counts)
        return failed, failed + sum(successes for successes, _ in counts)

    def _count(self, failed: bool, now: float) -> None:
        number = int(now / self._width)
        bucket = self._buckets.get(number)
        if bucket is None:
            for old in [known for known in self._buckets if known <= number - _BUCKETS]:
                del self._buckets[old]
            bucket = self._buckets[number] = [0, 0]
        bucket[failed] += 1
        if failed:
            bad, calls = self.failures(now)
            if calls >= self._settings.min_calls and bad >= self._settings.failure_rate * calls:
                self._failed_probes = 0
                self.opened += 1
                self._open(now)

    def _open(self, now: float) -> None:
        self.is_open = True
        self._next_probe = now + min(
            max(MAX_OPEN_S, self._settings.open_s), self._settings.open_s * 2.0 ** min(self._failed_probes, 16)
        )
        self._new_era()

    def _close(self) -> None:
        self.is_open = False
        self._buckets.clear()
        self._new_era()

    def _new_era(self) -> None:
        self._ticket = Ticket(self._ticket.era + 1, False)
        self._probes_out = self._probes_good = 0
