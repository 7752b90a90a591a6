"""Whether it pays to hold questions back: found from what the server says and answers. No I/O, no lock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from nat_dynamo_plugin.admission.costs import CallCosts
from nat_dynamo_plugin.admission.limits import UnderWay
from nat_dynamo_plugin.telemetry.record import CallRecord

FILL = 0.8
"""Share of the KV caches that is filled with the prompts of questions under way while the others are held back."""
LEAST_WASTE = 0.1
"""Share of the workers' time that goes into computing prompts again, above which holding back is thought of."""
LEAST_GAIN = 1.1
"""How many times as many calls a second must be expected of holding back."""
STILL_WASTE = 0.05
"""Share of the workers' time that would go into computing prompts again if all were let in, below which they are."""
STILL_GAIN = 0.8
"""How many times as many calls a second must still be expected of it, or it is no use."""
STILL_LOST = 0.5
"""Share of the loss expected without holding back that may still be seen with it, or it is no use."""
LEAST_CALLS = 16
"""Answers to go by before anything is decided."""
FIRST_BACKOFF = 64
"""Answers for which everything passes after holding back was no use; twice as many each time."""


class Decision(NamedTuple):
    """What was decided, and by what.

    Attributes:
        at: when, s.
        holds: whether questions are held back from then on.
        questions: under way then.
        tokens: of their prompts.
        waste: share of the workers' time (0 to 1, or more if the costs are overestimated) that goes, or would go, into
            computing prompts again.
        gain: calls a second expected of holding back, as a multiple of those without; not known of the way back.
    """

    at: float
    holds: bool
    questions: int
    tokens: float
    waste: float
    gain: float | None = None


@dataclass(frozen=True, slots=True)
class _Held:
    since_calls: int
    lost_share: float


class GoodputLimit:
    """Lets everything pass unless holding back can be shown to make more calls a second.

    Past the size of the caches, questions evict each other's prompts, and workers compute them again: thrashing, as
    Denning found it in virtual memory. What that costs is weighed against what holding back costs, which is that
    workers decode fewer sequences at once and wait while the questions inside are in their tools. Both come out of
    operational analysis (Denning and Buzen 1978) of a closed system, for which see `CallCosts`: with N questions under
    way, whose calls take longer the more of them run at once, and Z seconds in tools between them, the calls a second
    are X(N). Without holding back, each call computes beyond what is new to it also what it has lost; with it, fewer
    are under way. Questions are held back if

    - those under way take more tokens than all caches hold,
    - at least `LEAST_WASTE` of the workers' time goes into computing prompts again: what answers show to be lost, or
      what a least recently used cache will lose of that many tokens, and
    - X is expected to be `LEAST_GAIN` times as large.

    They are no longer if less than `STILL_WASTE` of the time would be lost by letting them all in. They are no longer
    either if that has turned out to be in vain: prompts are lost as before although few are under way, so something
    else evicts them, or from what is known by now, such as how long tools really take, fewer than `STILL_GAIN` times as
    many calls a second are expected of it. Then everything passes for a while, twice as long each time.

    Needs a frontend that says how much its workers hold, and answers that say what was cached and how long they took;
    without them everything passes.
    """

    def __init__(self) -> None:
        self.capacity = 0
        """Tokens that the KV caches of all workers hold; 0 for not known."""
        self.workers = 1
        """How many there are."""
        self._costs = CallCosts()
        self._held: _Held | None = None
        self._calls = 0
        self._blocked_until = LEAST_CALLS
        self._backoff = FIRST_BACKOFF
        self.history: deque[Decision] = deque(maxlen=4096)
        """The last decisions."""

    @property
    def room(self) -> float | None:
        """Tokens that may be under way while questions are held back; `None` while everything passes."""
        return None if self._held is None else FILL * self.capacity

    def on_capacity(self, tokens: int, workers: int) -> None:
        """The cluster's KV caches hold this many tokens, of so many workers."""
        self.capacity, self.workers = tokens, max(1, workers)

    def on_call(self, record: CallRecord, under_way: UnderWay, now: float) -> None:
        """Learn from a finished call; see `Limiter`."""
        if not self._costs.add(record, now):
            return
        self._calls += 1
        if not self.capacity or not self._costs.known:
            return
        if self._held is None:
            if self._calls >= self._blocked_until:
                self._weigh(under_way, now)
        elif self._calls - self._held.since_calls >= LEAST_CALLS:
            self._look_back(self._held, under_way, now)

    def _weigh(self, under_way: UnderWay, now: float) -> None:
        count, tokens = under_way.questions, under_way.tokens
        if count < 2 or tokens <= self.capacity:
            return
        costs = self._costs
        # Of a cyclic walk over more than it holds an LRU cache would lose all, of a random one the part beyond.
        beyond = 1.0 - self.capacity / tokens
        lost = max(costs.lost, beyond * costs.prompt)
        waste = costs.prefill_share(lost, self.workers)
        if waste < LEAST_WASTE:
            return
        fits = count * FILL * self.capacity / tokens
        gain = costs.throughput(fits, 0.0, self.workers) / costs.throughput(count, lost, self.workers)
        if gain >= LEAST_GAIN:
            self._held = _Held(self._calls, max(beyond, costs.lost_share))
            self.history.append(Decision(now, True, count, tokens, waste, gain))

    def _look_back(self, held: _Held, under_way: UnderWay, now: float) -> None:
        costs = self._costs
        inside, tokens = max(1, under_way.questions), under_way.tokens
        all_of_them = tokens * (inside + under_way.kept_out) / inside
        beyond = max(0.0, 1.0 - self.capacity / all_of_them) if all_of_them > 0 else 0.0
        waste = costs.prefill_share(beyond * costs.held, self.workers)
        in_vain = self._in_vain(held, inside, under_way.kept_out, beyond)
        if in_vain:
            self._blocked_until = self._calls + self._backoff
            self._backoff *= 2
        if in_vain or waste < STILL_WASTE:
            self._held = None
            self._blocked_until = max(self._blocked_until, self._calls + LEAST_CALLS)
            self.history.append(Decision(now, False, inside, tokens, waste))

    def _in_vain(self, held: _Held, inside: int, outside: int, beyond: float) -> bool:
        costs, since = self._costs, self._calls - held.since_calls
        # What was sent before is answered by now, and twice as much since.
        if since >= max(4 * LEAST_CALLS, 3 * (inside + outside)) and costs.lost_share > STILL_LOST * held.lost_share:
            return True
        if since < 2 * LEAST_CALLS:
            return False
        with_all = costs.throughput(inside + outside, max(costs.lost, beyond * costs.prompt), self.workers)
        return costs.throughput(inside, costs.lost, self.workers) < STILL_GAIN * with_all
