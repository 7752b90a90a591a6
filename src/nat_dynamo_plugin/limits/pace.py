"""When the next call may go so that a provider does not refuse it, by what it says of its limits. No I/O, no lock.

A reply says how much was left when its request was counted. Of what is under way, some is counted in that already and
some is not, so all of it is taken off. Too little is left then, never too much; and how fast a bucket fills does not
depend on how full it is. In a window what is left only falls, so that the least that was said is the newest.

Providers count in one of two ways: buckets that fill all the time (OpenAI, Anthropic), and windows that are empty at
once. Both are called `reset`. The time at which all is back tells them apart: of a bucket it moves with each request.
A reply that was long under way says it too late, so that time is known only to lie between two.
"""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import NamedTuple

from nat_dynamo_plugin.limits.headers import Told, Unit

_SMOOTHING = 0.2
_MARGIN_S = 0.01
"""Added to each wait (s), for clocks do not run alike."""


class Meter:
    """What is left of one unit at a provider."""

    def __init__(self) -> None:
        self.limit = inf
        self._left = inf
        self._at = 0.0
        self._full_at = inf
        self._first: tuple[float, float, float] | None = None  # between when all is back, and what was left
        self._rate: float | None = None  # of a bucket, in units a second
        self._newest = -1
        self._least = inf  # of a window
        self._turned = -inf

    def left(self, under_way: float, now: float) -> float:
        """How much may be taken at once, with so much under way."""
        if self._rate is not None:
            return min(self.limit, self._left + self._rate * (now - self._at))
        if now >= self._full_at:
            # What is under way may be counted by the old window or by the new one.
            self._left, self._turned, self._full_at = self.limit - under_way, self._full_at, inf
            self._least, self._first = self.limit, None
        return self._left

    def wait_s(self, amount: float, under_way: float, now: float) -> float:
        """Seconds until so much is there; 0 for now. More than fits in at all goes when all is back."""
        if self.limit == inf:
            return 0.0
        amount = min(amount, self.limit)
        short = amount - self.left(under_way, now)
        if short <= 0:
            return 0.0
        if self._rate is not None:
            return short / max(self._rate, 1e-9) + _MARGIN_S
        return max(0.0, self._full_at - now) + _MARGIN_S if self._full_at < inf else 0.0

    def take(self, amount: float, under_way: float, now: float) -> None:
        """A request goes that takes so much, beside what is under way."""
        self._left, self._at = self.left(under_way, now) - amount, now

    def tell(self, said: Told, number: int, under_way: float, overlapped: float, *, sent: float, now: float) -> None:
        """A reply has said something.

        Args:
            said: what.
            number: of its request, counted as they were sent.
            under_way: what the requests take that were sent and are not answered.
            overlapped: what the requests took that were answered since its request was sent.
            sent: when its request was sent.
            now: seconds of any clock that does not go back.
        """
        self.left(under_way, now)
        soonest, latest = sent + said.reset_s, now + said.reset_s
        if self._rate is None and soonest <= self._turned:
            return  # of a window that is over
        self.limit = said.limit
        self._learn_kind(said, soonest, latest, now)
        if self._rate is None:
            self._least = min(self._least, said.remaining)
            self._left = self._least - under_way
            self._full_at = min(latest, self._full_at)  # it is one window, and was said sooner before
        elif number > self._newest:  # a later request has told more
            self._newest, self._left, self._at = number, said.remaining - under_way - overlapped, now

    def _learn_kind(self, said: Told, soonest: float, latest: float, now: float) -> None:
        taken = said.limit - said.remaining
        if self._rate is not None:
            if taken > 0 and said.reset_s > said.step_s:
                self._rate += _SMOOTHING * (taken / (said.reset_s + said.step_s) - self._rate)
        elif self._first is None or now > self._first[0] - said.step_s:
            self._first = (soonest, latest, said.remaining)
        elif soonest > self._first[1] + said.step_s and said.remaining < self._first[2]:
            self._rate = taken / (said.reset_s + said.step_s)  # rather too slow than too fast


class _Sent(NamedTuple):
    """A request under way: when it was sent, what it takes, and what all had taken that were answered then."""

    at: float
    amounts: dict[Unit, float]
    answered: Counter[Unit]


class Pace:
    """Paces the requests of one key at one provider for one model.

    Until the first answer has come, one request is under way: who would know how much fits in?
    """

    def __init__(self) -> None:
        self.meters: dict[Unit, Meter] = {}
        self.is_known = False
        self._sent = 0
        self._under_way: dict[int, _Sent] = {}
        self._open: Counter[Unit] = Counter()
        self._answered: Counter[Unit] = Counter()
        self._paused_until = -inf

    def wait_s(self, amounts: dict[Unit, float], now: float) -> float | None:
        """Seconds until a request that takes so much may go, 0 for now; `None` until something else happens."""
        if not self.is_known and self._under_way:
            return None
        waits = (meter.wait_s(amounts.get(unit, 0.0), self._open[unit], now) for unit, meter in self.meters.items())
        return max(0.0, self._paused_until - now, *waits)

    def send(self, amounts: dict[Unit, float], now: float) -> int:
        """A request goes; gives its number."""
        self._sent += 1
        self._under_way[self._sent] = _Sent(now, amounts, self._answered.copy())
        for unit, meter in self.meters.items():
            meter.take(amounts.get(unit, 0.0), self._open[unit], now)
        self._open.update(amounts)
        return self._sent

    def answered(self, number: int, said: dict[Unit, Told], now: float) -> None:
        """The reply to a request has begun."""
        sent = self._close(number)
        self._answered.update(sent.amounts)
        self.is_known = True
        for unit, one in said.items():
            overlapped = self._answered[unit] - sent.answered[unit] - sent.amounts.get(unit, 0.0)
            meter = self.meters.setdefault(unit, Meter())
            meter.tell(one, number, self._open[unit], overlapped, sent=sent.at, now=now)

    def failed(self, number: int) -> None:
        """A request has no reply."""
        self._close(number)

    def _close(self, number: int) -> _Sent:
        sent = self._under_way.pop(number)
        self._open.subtract(sent.amounts)
        if not self._under_way:
            self._open.clear()  # of what rounding has left
        return sent

    def refused(self, wish_s: float | None, now: float) -> None:
        """The provider has refused a request for its rate, and wishes for a pause of so many seconds (`None`: 1)."""
        self._paused_until = max(self._paused_until, now + (1.0 if wish_s is None else wish_s))
