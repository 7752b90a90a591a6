"""What the time of GPUs of one's own costs each call: the time in which the server was busy, shared by who kept it so.

While calls are under way, the GPUs' price runs on and is split evenly among them, second by second, as processor
sharing does (Kleinrock 1967). So the costs of all calls add up to the price of the time in which there was one, however
they overlap; a prompt that was cached is answered sooner and costs what it took, no guess in between. Time in which
nobody asked is on nobody's bill.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

HOUR_S = 3600.0


class BusyTime:
    """Shares the price of busy time among the calls of one server that this process makes. Safe across threads.

    Args:
        usd_per_hour: what all GPUs of the server cost in an hour.
        clock: seconds, never going back.
    """

    def __init__(self, usd_per_hour: float, clock: Callable[[], float] = monotonic) -> None:
        self._per_s = usd_per_hour / HOUR_S
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way = 0
        self._at = 0.0
        self._each = 0.0  # what a call has paid that has been under way all the time

    def begin(self) -> float:
        """A call is under way; what to give to `end`."""
        with self._lock:
            self._run_on()
            self._under_way += 1
            return self._each

    def end(self, began: float) -> float:
        """The call is over; its share in USD."""
        with self._lock:
            self._run_on()
            self._under_way -= 1
            return self._each - began

    def _run_on(self) -> None:
        now = self._clock()
        if self._under_way:
            self._each += (now - self._at) * self._per_s / self._under_way
        self._at = now
