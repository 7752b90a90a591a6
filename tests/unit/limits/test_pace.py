"""Pacing against simulated providers: none of their limits is ever passed, and little of them is wasted."""

from __future__ import annotations

import heapq
import random
from typing import Any, Protocol

import pytest

from nat_dynamo_plugin.limits.headers import Told, Unit
from nat_dynamo_plugin.limits.pace import Pace


class Provider(Protocol):
    """Counts requests as one of the providers does."""

    def take(self, amount: float, now: float) -> bool:
        """Whether it is answered."""

    def say(self, now: float) -> Told:
        """What its answer says."""


class Bucket:
    """Fills all the time."""

    def __init__(self, limit: float, window_s: float, step_s: float = 0.01) -> None:
        self.limit, self.rate, self.step_s = limit, limit / window_s, step_s
        self.level, self.at = limit, 0.0

    def take(self, amount: float, now: float) -> bool:
        self.level = min(self.limit, self.level + self.rate * (now - self.at))
        self.at = now
        if self.level < amount:
            return False
        self.level -= amount
        return True

    def say(self, now: float) -> Told:
        reset = (self.limit - self.level) / self.rate
        return Told(self.limit, float(int(self.level)), round(reset / self.step_s) * self.step_s, self.step_s)


class FixedWindow:
    """Is empty at once."""

    def __init__(self, limit: float, window_s: float, step_s: float = 0.01) -> None:
        self.limit, self.window_s, self.step_s = limit, window_s, step_s
        self.number, self.count = 0, 0.0

    def take(self, amount: float, now: float) -> bool:
        if now // self.window_s != self.number:
            self.number, self.count = int(now // self.window_s), 0.0
        if self.count + amount > self.limit:
            return False
        self.count += amount
        return True

    def say(self, now: float) -> Told:
        left = self.window_s - now % self.window_s
        return Told(self.limit, self.limit - self.count, -(-left // self.step_s) * self.step_s, self.step_s)


def overload(
    provider: Any, *, seconds: float, callers: int, latency_s: float = 0.5, seed: int = 1, unit: Unit = "requests"
) -> tuple[float, int]:
    """What callers that never pause get through in that time, and how many refusals."""
    rng, pace, now = random.Random(seed), Pace(), 0.0
    events: list[tuple[float, int, str, Any]] = []
    tie = iter(range(10**9))
    through, refused = 0.0, 0

    def ask() -> None:
        amount = 1.0 if unit == "requests" else rng.uniform(200, 1800)
        heapq.heappush(events, (now, next(tie), "ask", amount))

    for _ in range(callers):
        ask()
    while events and (event := heapq.heappop(events))[0] < seconds:
        now, _, what, value = event
        if what == "ask":
            wait = pace.wait_s({unit: value}, now)
            if wait == 0.0:
                number = pace.send({unit: value}, now)
                heapq.heappush(events, (now + rng.uniform(0, 0.05), next(tie), "count", (number, value)))
            else:
                heapq.heappush(events, (now + (0.02 if wait is None else min(wait, 0.25)), next(tie), "ask", value))
        elif what == "count":
            number, amount = value
            well = provider.take(amount, now)
            through += amount * well
            refused += not well
            # Headers travel at once or with the answer; in any order.
            heapq.heappush(events, (now + rng.uniform(0, latency_s), next(tie), "answer", (number, provider.say(now))))
        else:
            number, said = value
            pace.answered(number, {unit: said}, now)
            ask()
    return through, refused


@pytest.mark.parametrize("unit", ["requests", "tokens"])
@pytest.mark.parametrize("step_s", [0.01, 1.0])
@pytest.mark.parametrize("kind", [Bucket, FixedWindow])
def test_in_ten_minutes_of_overload_nothing_is_refused_and_little_is_wasted(
    kind: Any, step_s: float, unit: Unit
) -> None:
    limit = 600 if unit == "requests" else 600_000
    through, refused = overload(kind(limit, 60.0, step_s), seconds=600.0, callers=50, unit=unit)
    assert refused == 0
    allowed = limit * (11 if kind is Bucket else 10)  # a bucket that was full gives one window's worth more
    assert through >= 0.95 * allowed


def test_one_request_goes_first() -> None:
    pace = Pace()
    first = pace.send({"requests": 1.0}, 0.0)
    assert pace.wait_s({"requests": 1.0}, 0.0) is None
    pace.answered(first, {}, 1.0)
    assert pace.wait_s({"requests": 1.0}, 1.0) == 0.0  # a server without limits is not paced


def test_one_that_fails_lets_another_try() -> None:
    pace = Pace()
    pace.failed(pace.send({}, 0.0))
    assert pace.wait_s({}, 0.0) == 0.0


def test_a_refusal_makes_all_wait_as_long_as_the_server_wishes() -> None:
    pace = Pace()
    pace.answered(pace.send({}, 0.0), {}, 0.0)
    pace.refused(7.0, 10.0)
    assert pace.wait_s({}, 12.0) == 5.0
    pace.refused(None, 16.9)
    assert pace.wait_s({}, 17.0) == pytest.approx(0.9)


def test_one_that_fits_in_never_goes_when_all_is_back() -> None:
    pace = Pace()
    pace.answered(pace.send({"tokens": 1.0}, 0.0), {"tokens": Told(100, 100, 0, 0.01)}, 0.0)
    assert pace.wait_s({"tokens": 1000.0}, 0.0) == 0.0
    pace.send({"tokens": 1000.0}, 0.0)
    assert pace.meters["tokens"].left(0.0, 0.0) < 0
