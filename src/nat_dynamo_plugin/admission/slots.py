"""Slots for calls: so many are under way at once, the others wait in order, in threads and in event loops."""

from __future__ import annotations

import gc
import heapq
import logging
from collections.abc import Callable
from itertools import count
from math import inf
from time import monotonic
from typing import Self

from nat_dynamo_plugin.admission.concurrency import ConcurrencyLimit
from nat_dynamo_plugin.admission.turn import LoopTurn, ThreadTurn, in_loop
from nat_dynamo_plugin.locks import Lock, after_fork

logger = logging.getLogger(__name__)

STALLED_S = 300.0
"""A call gives up its wait when for so long (s) not one was answered."""
LOST_S = 2.0
"""After so long (s) without an answer, those that their readers have dropped are looked for."""
_SHORTEST_WAIT_S = 0.005


class Slots:
    """Lets so many calls be under way as a server takes. Who made its call first goes first.

    Args:
        limit: how many.
        server: named in the log.
        clock: seconds, never going back.
    """

    def __init__(self, limit: ConcurrencyLimit, server: str, clock: Callable[[], float] = monotonic) -> None:
        self.limit = limit
        self.server = server
        self.clock = clock
        self.under_way = 0
        self.heap: list[tuple[float, int, Slot]] = []
        self.last_answer = -inf
        self._collected = -inf
        self.lock = Lock()
        self.numbers = count()
        self._told: float = limit.most
        after_fork(self, Slots._reset)

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return sum(slot.waits for _, _, slot in self.heap)

    def lower(self, most: int) -> None:
        """Never more than this from now on."""
        with self.lock:
            self.limit.most = min(self.limit.most, most)
            self.limit.limit = min(self.limit.limit, self.limit.most)

    def slot(self, made_at: float) -> Slot:
        """A slot for a call, to be entered.

        Args:
            made_at: when the call was made; who made it first goes first, also with a retry.
        """
        return Slot(self, made_at)

    def grant(self) -> None:
        """Let those go for whom there is room. Needs the lock."""
        now = self.clock()
        while self.heap and self.limit.room(self.under_way, now):
            slot = heapq.heappop(self.heap)[2]
            if slot.waits:
                slot.waits = False
                if slot.wake():
                    self.under_way += 1
                    slot.taken = True

    def find_lost(self, asked: float) -> None:
        """Take the slots of answers that were dropped without being closed, if nothing has moved for a while.

        OpenAI's library ties a stream into a circle, which only Python's collector finds; and that does not run while
        all that would allocate something waits here.

        Args:
            asked: since when somebody waits.
        """
        with self.lock:
            now, moved = self.clock(), max(asked, self.last_answer)
            patience = LOST_S if self._collected < moved else STALLED_S / 10
            if now - max(moved, self._collected) < patience:
                return
            self._collected = now
        gc.collect()

    def refused(self) -> None:
        """The server refused a call for overload. Needs the lock."""
        self.limit.refused(self.under_way, self.clock())
        if self.limit.limit <= self._told / 2:
            self._told = self.limit.limit
            logger.warning(
                "%s is overloaded: it has room for %d calls at once; further ones wait here", self.server, self._told
            )

    def _reset(self) -> None:
        self.under_way, self.heap = 0, []


class Slot:
    """One attempt's slot. Entering waits, `leave` gives it back; an entry that is cancelled leaves nothing behind.

    A blocking entry in a running event loop does not wait, for that would stop the loop.

    Attributes:
        waited_s: how long entering waited, in seconds.
        give_up_at: when a blocking entry gives up with a `TimeoutError`, in seconds of `time.monotonic`; `None` for
            when nothing has been answered for `STALLED_S`.
    """

    __slots__ = ("_slots", "give_up_at", "made_at", "taken", "waited_s", "waits", "wake")

    def __init__(self, slots: Slots, made_at: float) -> None:
        """See `Slots.slot`, which makes them."""
        self._slots = slots
        self.made_at = made_at
        self.give_up_at: float | None = None
        self.waited_s = 0.0
        self.taken = False
        self.waits = False
        self.wake: Callable[[], bool] = bool

    def try_enter(self) -> bool:
        """Enter if nobody has to wait; whether it is entered."""
        slots = self._slots
        with slots.lock:
            if not slots.heap and slots.limit.room(slots.under_way, slots.clock()):
                slots.under_way += 1
                self.taken = True
        return self.taken

    def __enter__(self) -> Self:
        if in_loop():
            self._past()
            return self
        turn = ThreadTurn()
        asked = self._queue_up(turn.wake)
        try:
            while not self.taken:
                turn.wait(self._longest(asked))
                self._look(asked)
        except BaseException:
            self.leave()
            raise
        return self

    async def __aenter__(self) -> Self:
        turn = LoopTurn()
        asked = self._queue_up(turn.wake)
        try:
            while not self.taken:
                await turn.wait(self._longest(asked))
                self._look(asked)
        except BaseException:
            self.leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self, *, answered: bool = False, refused: bool = False) -> None:
        """Give the slot back, from any thread, also from a destructor; only the first time counts."""
        if self.taken or self.waits:
            self._slots.lock.soon(lambda: self._leave(answered, refused))

    def _leave(self, answered: bool, refused: bool) -> None:
        slots = self._slots
        if self.taken:
            self.taken = False
            slots.under_way -= 1
            if answered:
                slots.last_answer = slots.clock()
                slots.limit.answered()
            elif refused:
                slots.refused()
        self.waits = False
        slots.grant()

    def _past(self) -> None:
        with self._slots.lock:
            self._slots.under_way += 1
            self.taken = True

    def _queue_up(self, wake: Callable[[], bool]) -> float:
        slots = self._slots
        self.wake = wake
        with slots.lock:
            self.waits = True
            heapq.heappush(slots.heap, (self.made_at, next(slots.numbers), self))
            slots.grant()
        return slots.clock()

    def _longest(self, asked: float) -> float:
        """How long to wait before looking again (s): a pause of the server's ends unseen."""
        slots = self._slots
        now = slots.clock()
        pause = slots.limit.paused_until - now
        left = self._until(asked) - now
        return max(_SHORTEST_WAIT_S, min(left, pause if pause > 0 else LOST_S, LOST_S))

    def _look(self, asked: float) -> None:
        slots = self._slots
        if not self.taken:
            with slots.lock:
                slots.grant()
            slots.find_lost(asked)
        now = slots.clock()
        self.waited_s = now - asked
        if not self.taken and now >= self._until(asked):
            raise TimeoutError(f"nothing was answered by {slots.server} for {now - asked:.0f} s")

    def _until(self, asked: float) -> float:
        stalled = max(asked, self._slots.last_answer) + STALLED_S
        return stalled if self.give_up_at is None else min(stalled, self.give_up_at)
