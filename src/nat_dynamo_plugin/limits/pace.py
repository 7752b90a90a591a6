"""When the next call may go so that a provider does not refuse it, by what it says of its limits. No I/O, no lock.

A reply says how much was left when its request was counted. Of what is under way since, some is counted in that already
and some is not, so all of it is taken off: too little is left then by what is under way, never too much, and the rate
of a full bucket is not touched by how full it is.

Providers count in one of two ways: buckets that fill all the time (OpenAI, Anthropic), and windows that are empty at
once. Both are called `reset`. The time at which all is back tells them apart: of a bucket it moves with each request.
"""

from __future__ import annotations

from math import inf

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
        self._epoch: tuple[float, float] | None = None  # when all is back, and what was left, as first said
        self._rate: float | None = None  # of a bucket, in units a second
        self._newest = -1

    def left(self, now: float) -> float:
        """How much may be taken at once."""
        if self._rate is not None:
            return min(self.limit, self._left + self._rate * (now - self._at))
        if now >= self._full_at:
            self._left, self._full_at, self._epoch = self._left_after_reset(), inf, None
        return self._left

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until so much is there; 0 for now. More than fits in at all goes when all is back."""
        if self.limit == inf:
            return 0.0
        amount = min(amount, self.limit)
        short = amount - self.left(now)
        if short <= 0:
            return 0.0
        if self._rate is not None:
            return short / max(self._rate, 1e-9) + _MARGIN_S
        return max(0.0, self._full_at - now) + _MARGIN_S if self._full_at < inf else 0.0

    def take(self, amount: float, now: float) -> None:
        """A request goes that takes so much."""
        self._left, self._at = self.left(now) - amount, now

    def tell(self, said: Told, number: int, under_way: float, now: float) -> None:
        """A reply has said something.

        Args:
            said: what.
            number: of its request, counted as they were sent.
            under_way: what the requests take that were sent and are not answered.
            now: seconds of any clock that does not go back.
        """
        if number < self._newest:
            return  # a later request has told more
        self._newest = number
        self.limit = said.limit
        full_at = now + said.reset_s
        self._learn_kind(said, full_at, now)
        left = said.remaining - under_way
        self._left, self._at, self._full_at = left, now, full_at

    def _learn_kind(self, said: Told, full_at: float, now: float) -> None:
        taken = said.limit - said.remaining
        if self._rate is not None:
            if taken > 0 and said.reset_s > said.step_s:
                self._rate += _SMOOTHING * (taken / said.reset_s - self._rate)
            return
        if self._epoch is None or now > self._epoch[0]:
            self._epoch = (full_at, said.remaining)
            return
        first, remaining = self._epoch
        moved = full_at - first
        if said.remaining < remaining and moved > 1.5 * said.step_s + 0.05 and said.reset_s > 0:
            self._rate = taken / said.reset_s

    def _left_after_reset(self) -> float:
        return self.limit + min(0.0, self._left)

    number: int
    amounts: dict[Unit, float]


class Pace:
    """Paces the requests of one key at one provider for one model.

    Until the first answer has come, one request is under way: who would know how much fits in?
    """

    def __init__(self) -> None:
        self.meters: dict[Unit, Meter] = {}
        self.is_known = False
        self._sent = 0
        self._under_way: dict[int, dict[Unit, float]] = {}
        self._paused_until = -inf

    @property
    def under_way(self) -> int:
        """Requests sent that have no answer yet."""
        return len(self._under_way)

    def wait_s(self, amounts: dict[Unit, float], now: float) -> float | None:
        """Seconds until a request that takes so much may go, 0 for now; `None` until something else happens."""
        if not self.is_known and self._under_way:
            return None
        waits = (meter.wait_s(amounts.get(unit, 0.0), now) for unit, meter in self.meters.items())
        return max(0.0, self._paused_until - now, *waits)

    def send(self, amounts: dict[Unit, float], now: float) -> int:
        """A request goes; gives its number."""
        self._sent += 1
        self._under_way[self._sent] = amounts
        for unit, meter in self.meters.items():
            meter.take(amounts.get(unit, 0.0), now)
        return self._sent

    def answered(self, number: int, said: dict[Unit, Told], now: float) -> None:
        """The reply to a request has begun."""
        self._under_way.pop(number, None)
        self.is_known = True
        for unit, one in said.items():
            meter = self.meters.setdefault(unit, Meter())
            meter.tell(one, number, sum(amounts.get(unit, 0.0) for amounts in self._under_way.values()), now)

    def failed(self, number: int) -> None:
        """A request has no reply."""
        self._under_way.pop(number, None)

    def refused(self, wish_s: float | None, now: float) -> None:
        """The provider has refused a request for its rate, and wishes for a pause of so many seconds (`None`: 1)."""
        self._paused_until = max(self._paused_until, now + (1.0 if wish_s is None else wish_s))
