"""How many calls each chain of reasoning has made."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from nat_dynamo_plugin.question.endings import on_question_end
from nat_dynamo_plugin.question.forks import renew_in_child

MAX_CHAINS = 16_384
"""Chains whose calls are counted at once; the least recently used is forgotten first."""
CHAIN_TTL_S = 3600.0
"""Seconds after a chain's last call until its counter is forgotten."""


class _Count(NamedTuple):
    calls: int
    last: float
    prefix_id: str


class CallCounters:
    """How many calls each chain has made: until its question is over, bounded in number and age, safe across threads.

    On the path of every call, so it is an `OrderedDict` of its own, a sixth of the cost of a `cachetools.TTLCache`.

    Args:
        max_chains: chains counted at once.
        ttl_s: seconds after a chain's last call until it is forgotten.
        clock: a monotonic clock, s.
    """

    def __init__(
        self, max_chains: int = MAX_CHAINS, ttl_s: float = CHAIN_TTL_S, clock: Callable[[], float] = monotonic
    ) -> None:
        self._counts: OrderedDict[str, _Count] = OrderedDict()  # by session id, least recently used first
        self._chains: dict[str, set[str]] = {}  # session ids by prefix id
        self._max_chains = max_chains
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        renew_in_child(self)
        on_question_end(self)

    def renew(self) -> None:
        """Make the lock anew, after a fork."""
        self._lock = threading.Lock()

    def next_index(self, session_id: str, prefix_id: str) -> int:
        """0 for the chain's first call, then 1, 2, ...

        Args:
            session_id: the chain.
            prefix_id: the question whose end ends it.
        """
        now = self._clock()
        counts = self._counts
        with self._lock:
            count = counts.get(session_id)
            if count is None:
                index = 0
                self._chains.setdefault(prefix_id, set()).add(session_id)
            else:
                index = 0 if now - count.last > self._ttl_s else count.calls
                counts.move_to_end(session_id)
            counts[session_id] = _Count(index + 1, now, prefix_id)
            oldest = next(iter(counts))
            if len(counts) > self._max_chains or now - counts[oldest].last > self._ttl_s:
                self._forget(oldest)  # one a call is enough, as a call adds one at most
        return index

    def question_ended(self, prefix_id: str) -> None:
        """Forget the question's chains: whoever asks under this id again begins anew."""
        with self._lock:
            for session_id in self._chains.pop(prefix_id, ()):
                self._counts.pop(session_id, None)

    def _forget(self, session_id: str) -> None:
        prefix_id = self._counts.pop(session_id).prefix_id
        chains = self._chains.get(prefix_id)
        if chains is not None:
            chains.discard(session_id)
            if not chains:
                del self._chains[prefix_id]

    def __len__(self) -> int:
        return len(self._counts)
