"""How many calls a server takes at once, learned from what it refuses. No I/O, no lock."""

from __future__ import annotations

from math import inf

GROWTH = 0.02
"""How much the limit grows with each answer after a refusal; by 1 a round trip or so for every 50 calls."""
MAX_GROWTH = 0.5
PATIENCE = 100
"""After so many answers without a refusal the growth doubles."""
PAUSE_S = 0.25
MAX_PAUSE_S = 8.0
"""Nothing is sent for so long to a server that refuses although nothing of ours is under way: first, and at most."""


class ConcurrencyLimit:
    """Calls at once: no limit until the server refuses one, then as many as it has under way, and slowly more.

    A refusal says that what is under way is all there is room for, which is exact at the moment, while halving as for
    a network's congestion (AIMD) takes many refusals to come down from a burst.

    Args:
        most: never more than this.
        adapts: whether refusals lower it.
    """

    def __init__(self, most: int, *, adapts: bool = True) -> None:
        self.most = most
        self.adapts = adapts
        self.limit: float = most
        self._growth = GROWTH
        self._answers = 0
        self._refusals_alone = 0
        self.paused_until = -inf

    def answered(self) -> None:
        """A call was answered."""
        self._refusals_alone = 0
        if self.limit < self.most:
            self._answers += 1
            if self._answers % PATIENCE == 0:
                self._growth = min(MAX_GROWTH, self._growth * 2.0)
            self.limit = min(self.most, self.limit + self._growth)

    def refused(self, under_way: int, now: float) -> None:
        """A call was refused for overload.

        Args:
            under_way: calls that are under way besides.
            now: seconds of any clock that does not go back.
        """
        if not self.adapts:
            return
        self.limit = min(self.limit, max(1, under_way))
        self._growth, self._answers = GROWTH, 0
        if under_way == 0:
            pause = min(MAX_PAUSE_S, PAUSE_S * 2.0 ** min(self._refusals_alone, 16))
            self._refusals_alone += 1
            self.paused_until = max(self.paused_until, now + pause)

    def room(self, under_way: int, now: float) -> bool:
        """Whether one more may go."""
        return under_way < int(self.limit) and now >= self.paused_until
