"""Admission: which questions may be under way at once, and who waits for whom.

A question holds its place from its first call until it ends or has been idle for a while; its calls never wait in
between.
`AdmissionQueue` decides and does no I/O and reads no clock; `Gate` is the thin shell around it that lets threads and
coroutines of any event loop wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import math
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

from nat_dynamo_plugin.admission.limits import AdaptiveLimit, Limiter, LimitWindow, UnderWay
from nat_dynamo_plugin.admission.prompts import Prompt, read_prompt
from nat_dynamo_plugin.admission.working_set import WorkingSet
from nat_dynamo_plugin.plan.serving import MAX_OVERTAKING_S, work_priority
from nat_dynamo_plugin.telemetry.record import CallRecord

IDLE_S = 30.0
"""Seconds without a call after which a question gives its place up: its scope was never closed, or its tool takes
long."""

HEAD_START_S = 2.0 * MAX_OVERTAKING_S
"""Seconds of waiting that it is worth to share most of one's first prompt with questions under way: more than any
difference in expected work, which decides among those that share, and among those that do not."""

MOSTLY_SHARED = 0.25
"""Largest share of a first prompt that nobody under way has, for the head start."""

UNKNOWN_PROMPT = Prompt()
"""Of a call whose body can not be read."""

LOST_S = 3600.0
"""Seconds after which a call in flight that nobody has ended is taken for lost."""

MAX_WAIT_S = 300.0
"""Longest wait at the gate in seconds: after it a question goes in, whatever the limit."""

_SHORTEST_LOOK_S = 0.01


@dataclass(slots=True)
class _Admitted:
    """A question under way.

    Attributes:
        in_flight: its calls that are not answered yet.
        heard: when it was last heard of.
        prompt: its first one.
        first_tokens: tokens of its first prompt, once that was answered.
    """

    in_flight: int
    heard: float
    prompt: Prompt
    first_tokens: int | None = None


@dataclass(slots=True)
class Ticket:
    """A question that waits, with all its calls that do.

    Attributes:
        prefix_id: the question.
        since: when it came.
        order: who is next: the smallest.
        prompt: its first one.
        calls: how many of its calls wait.
        admitted: whether its turn has come.
        wake: called once, when its turn comes, one for each call that waits; false if nobody is there to wake.
    """

    prefix_id: str
    since: float
    order: tuple[float, int]
    prompt: Prompt
    calls: int = 0
    admitted: bool = False
    wake: list[Callable[[], bool]] = field(default_factory=list)


class AdmissionQueue:
    """Who is in, who waits, who is next. Pure: it is told the time, and it tells whom to wake.

    Order: shortest expected work first, with ageing. A question's rank is its arrival less `work_priority(work)`, the
    formula of the router's queue, so it is never overtaken by one that comes `MAX_OVERTAKING_S` after it. Besides,
    nobody waits longer than `max_wait_s`, whatever the limit: that is the bound on a wait, and the end of every
    deadlock.

    Questions whose prompts begin like those under way have a head start, for a KV cache keeps a beginning once.

    Work conserving: nobody waits while the first who waits fits, nor while none of those under way has a call in
    flight, for then the cluster is idle as far as this client can see.
    """

    def __init__(
        self,
        limit: int | None,
        *,
        room: float | None = None,
        idle_s: float = IDLE_S,
        max_wait_s: float = MAX_WAIT_S,
    ) -> None:
        """Open, with no one inside.

        Args:
            limit: questions under way at once, 1 or more; `None` for any number.
            room: tokens that their prompts may have together, what they share counted once; `None` for any number.
            idle_s: see `IDLE_S`.
            max_wait_s: see `MAX_WAIT_S`.
        """
        self.limit = limit
        self.room = room
        self.idle_s = idle_s
        self.max_wait_s = max_wait_s
        self._in: dict[str, _Admitted] = {}
        self._waiting: dict[str, Ticket] = {}
        # The waiting by what their prompts begin with, each family in order.
        self._families: dict[int | None, list[tuple[tuple[float, int], Ticket]]] = {}
        self._set = WorkingSet()
        self._first: Ticket | None = None
        self._oldest: list[tuple[float, int, Ticket]] = []
        self._count = itertools.count()
        self._in_flight = 0

    @property
    def under_way(self) -> int:
        """Questions that are in."""
        return len(self._in)

    @property
    def tokens(self) -> float:
        """Tokens of the prompts of questions that are in, what they share counted once."""
        return self._set.tokens

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Calls of admitted questions that have not been answered."""
        return self._in_flight

    def is_in(self, prefix_id: str) -> bool:
        """Whether a question is under way."""
        return prefix_id in self._in

    def knows(self, prefix_id: str) -> bool:
        """Whether a question is under way or waits, so that its first prompt is known."""
        return prefix_id in self._in or prefix_id in self._waiting

    def host(self, prefix_id: str, ancestors: tuple[str, ...]) -> str:
        """On whose place a call goes: the first of its question and the questions around it that is in."""
        if prefix_id not in self._in:
            for outer in ancestors:
                if outer in self._in:
                    return outer
        return prefix_id

    def begin(
        self, prefix_id: str, work_tokens: float | None, now: float, prompt: Prompt = UNKNOWN_PROMPT
    ) -> Ticket | None:
        """A call wants to start. `None`: it may; otherwise its question waits, and the ticket says so.

        Args:
            prefix_id: on whose place it goes; see `host`.
            work_tokens: expected output tokens of the whole question, if known.
            now: seconds, of any clock that does not go back.
            prompt: the call's; only that of a question's first call counts.
        """
        admitted = self._in.get(prefix_id)
        if admitted is not None:
            admitted.in_flight += 1
            admitted.heard = now
            self._in_flight += 1
            return None
        self._drop_idle(now)
        ticket = self._waiting.get(prefix_id)
        if ticket is None:
            rank = now + MAX_OVERTAKING_S - (work_priority(work_tokens) if work_tokens is not None else 0)
            ticket = Ticket(prefix_id, now, (rank, next(self._count)), prompt)
            self._waiting[prefix_id] = ticket
            self._first = None
            heapq.heappush(self._families.setdefault(self._set.family(prompt), []), (ticket.order, ticket))
            heapq.heappush(self._oldest, (ticket.since, ticket.order[1], ticket))
        ticket.calls += 1
        self.admit(now)
        return None if ticket.admitted else ticket

    def answered(self, prefix_id: str, record: CallRecord) -> None:
        """Learn from the answer to a call of a question that is in."""
        place = self._in.get(prefix_id)
        if place is None or record.prompt_tokens is None:
            return
        if place.first_tokens is None:
            place.first_tokens = record.prompt_tokens
        tokens = record.prompt_tokens + (record.completion_tokens or 0)
        self._set.learn(place.prompt, place.first_tokens, tokens)

    def end_call(self, prefix_id: str, now: float) -> None:
        """A call that was let in has been answered or has failed."""
        admitted = self._in.get(prefix_id)
        if admitted is not None and admitted.in_flight:
            admitted.in_flight -= 1
            admitted.heard = now
            self._in_flight -= 1
            if not self._in_flight:
                self.admit(now)

    def end(self, prefix_id: str, now: float) -> None:
        """A question is done and gives its place up. Calls that are still in flight no longer count."""
        if prefix_id in self._in:
            self._remove(prefix_id)
            self.admit(now)

    def leave(self, ticket: Ticket, now: float) -> None:
        """A waiting call gives up, whether its turn has come by now or not."""
        if ticket.admitted:
            self.end_call(ticket.prefix_id, now)
            admitted = self._in.get(ticket.prefix_id)
            if admitted is not None and not admitted.in_flight:
                self.end(ticket.prefix_id, now)
            return
        ticket.calls -= 1
        if not ticket.calls:
            self._waiting.pop(ticket.prefix_id, None)
            self._first = None

    def admit(self, now: float) -> None:
        """Let in whoever may go in now."""
        while self._waiting:
            late = self._late(now)
            if late is not None:
                self._let_in(late, now)
            elif not self._in_flight or self._fits(self._next()):
                self._let_in(self._next(), now)
            else:
                return
        self._families.clear()
        self._oldest.clear()

    def _fits(self, ticket: Ticket) -> bool:
        if self.limit is not None and len(self._in) >= self.limit:
            return False
        return self.room is None or self._set.tokens + self._set.cost(ticket.prompt) <= self.room

    def _next(self) -> Ticket:
        """The first of the families' first ones; one that shares most of its prompt with who is in has a head start."""
        if self._first is not None:
            return self._first
        best: tuple[float, int] | None = None
        for family, heap in list(self._families.items()):
            while heap and not self._is_waiting(heap[0][1]):
                heapq.heappop(heap)
            if not heap:
                del self._families[family]
                continue
            (rank, number), ticket = heap[0]
            size = ticket.prompt.size
            if size and self._set.missing(ticket.prompt) <= MOSTLY_SHARED * size:
                rank -= HEAD_START_S
            if best is None or (rank, number) < best:
                best, self._first = (rank, number), ticket
        assert self._first is not None  # whoever waits is in a family
        return self._first

    def poll(self, now: float) -> float:
        """Drop who is idle, let in whoever may go in, and say in how many seconds to look again; `inf` for never."""
        self._drop_idle(now)
        self.admit(now)
        if not self._waiting:
            return math.inf
        idle = (place.heard + self.idle_s for place in self._in.values() if not place.in_flight)
        while self._oldest and not self._is_waiting(self._oldest[0][2]):
            heapq.heappop(self._oldest)
        late = self._oldest[0][0] + self.max_wait_s if self._oldest else math.inf
        return max(0.0, min(min(idle, default=math.inf), late) - now)

    def _is_waiting(self, ticket: Ticket) -> bool:
        return self._waiting.get(ticket.prefix_id) is ticket

    def _late(self, now: float) -> Ticket | None:
        while self._oldest:
            since, _, ticket = self._oldest[0]
            if not self._is_waiting(ticket):
                heapq.heappop(self._oldest)
            else:
                return ticket if now - since >= self.max_wait_s else None
        return None

    def _let_in(self, ticket: Ticket, now: float) -> None:
        del self._waiting[ticket.prefix_id]
        ticket.admitted = True
        self._in[ticket.prefix_id] = _Admitted(ticket.calls, now, ticket.prompt)
        self._set.add(ticket.prompt)
        self._first = None
        self._in_flight += ticket.calls
        lost = sum(not wake() for wake in ticket.wake)
        if lost:
            # Whoever waited is gone without a word (its event loop was closed), so nobody would end these calls.
            self._in_flight -= lost
            self._in[ticket.prefix_id].in_flight -= lost
            if lost == ticket.calls:
                self._remove(ticket.prefix_id)

    def _remove(self, prefix_id: str) -> None:
        place = self._in.pop(prefix_id)
        self._in_flight -= place.in_flight
        self._set.remove(place.prompt)
        self._first = None

    def _drop_idle(self, now: float) -> None:
        for prefix_id in [
            prefix_id
            for prefix_id, place in self._in.items()
            if now - place.heard >= (LOST_S if place.in_flight else self.idle_s)
        ]:
            self._remove(prefix_id)


_gates: weakref.WeakSet[Gate] = weakref.WeakSet()


def gates() -> list[Gate]:
    """All gates in use, for metrics."""
    return list(_gates)


@dataclass(slots=True)
class Pass:
    """A call's way through the gate.

    Attributes:
        prefix_id: on whose place it goes.
        ticket: while it has to wait; `None` once it may go.
        waited_ms: how long it waited.
    """

    prefix_id: str
    ticket: Ticket | None
    waited_ms: float | None = None


class Gate:
    """Lets so many questions be under way as there is room for, for callers in threads and in any event loop.

    Args:
        limit: questions under way at once; or who finds out how much room there is.
        model: whose calls it lets in, for metrics.
        idle_s: see `IDLE_S`.
        max_wait_s: see `MAX_WAIT_S`.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        limit: int | Limiter,
        *,
        model: str = "unknown",
        idle_s: float = IDLE_S,
        max_wait_s: float = MAX_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self._limiter = None if isinstance(limit, int) else limit
        self._queue = AdmissionQueue(limit if isinstance(limit, int) else None, idle_s=idle_s, max_wait_s=max_wait_s)
        if self._limiter is not None:
            self._follow_limiter(self._limiter)
        self._clock = clock
        self._lock = threading.Lock()
        _gates.add(self)

    @property
    def adapts(self) -> bool:
        """Whether it is told what the server can take."""
        return self._limiter is not None

    @property
    def limit(self) -> int | None:
        """Questions that may be under way now; `None` where `room` bounds them."""
        return self._queue.limit

    @property
    def room(self) -> float | None:
        """Tokens that their prompts may have; `None` where `limit` bounds them."""
        return self._queue.room

    @property
    def under_way(self) -> int:
        """Questions that are."""
        return self._queue.under_way

    @property
    def tokens(self) -> float:
        """Tokens of their prompts, what they share counted once."""
        return self._queue.tokens

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return self._queue.waiting

    @property
    def history(self) -> list[LimitWindow]:
        """What an adaptive limit has done lately; empty for a number."""
        return list(self._limiter.history) if isinstance(self._limiter, AdaptiveLimit) else []

    def begin(
        self,
        prefix_id: str,
        ancestors: tuple[str, ...] = (),
        work_tokens: float | None = None,
        body: bytes | None = None,
    ) -> Pass:
        """A call wants to start; if the pass has a ticket, `wait` or `wait_async` must follow.

        Every pass must be given back with `end_call`, unless its wait was broken off.

        Args:
            prefix_id: the call's question.
            ancestors: questions that this one was opened in; a place of theirs covers it, or they would wait for
                each other.
            work_tokens: expected output tokens of the whole question, if known.
            body: the request's, to see what the question's prompts begin with.
        """
        queue = self._queue
        with self._lock:
            host = queue.host(prefix_id, ancestors)
            if body is None or queue.knows(host):
                return Pass(host, queue.begin(host, work_tokens, self._clock()))
        # Once a question; a long body takes a while, so outside the lock.
        prompt = read_prompt(body)
        with self._lock:
            host = queue.host(prefix_id, ancestors)
            return Pass(host, queue.begin(host, work_tokens, self._clock(), prompt))

    def on_capacity(self, tokens: int) -> None:
        """The cluster's KV caches hold this many tokens."""
        if self._limiter is not None:
            with self._lock:
                self._limiter.on_capacity(tokens)
                self._follow_limiter(self._limiter)
                self._queue.admit(self._clock())

    def wait(self, entry: Pass) -> None:
        """Block this thread until the call may go."""
        ticket = entry.ticket
        if ticket is None:
            return
        turn = threading.Event()

        def wake() -> bool:
            turn.set()
            return True

        if self._enlist(ticket, wake):
            try:
                while not ticket.admitted:
                    turn.wait(self._look())
            except BaseException:
                self._leave(entry, ticket, wake)
                raise
        self._go(entry, ticket)

    async def wait_async(self, entry: Pass) -> None:
        """Wait in the running event loop until the call may go."""
        ticket = entry.ticket
        if ticket is None:
            return
        loop = asyncio.get_running_loop()
        turn = asyncio.Event()

        def wake() -> bool:
            try:
                loop.call_soon_threadsafe(turn.set)
            except RuntimeError:
                return False
            return True

        if self._enlist(ticket, wake):
            try:
                while not ticket.admitted:
                    # Time out in the loop, not in the queue: the turn may come at the same moment.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._look()):
                            await turn.wait()
            except BaseException:
                self._leave(entry, ticket, wake)
                raise
        self._go(entry, ticket)

    def end_call(self, entry: Pass, record: CallRecord | None = None) -> None:
        """A call that was let in is over; its record tells an adaptive limit how the server is doing."""
        with self._lock:
            queue = self._queue
            now = self._clock()
            if record is not None:
                queue.answered(entry.prefix_id, record)
            if self._limiter is not None and record is not None:
                under_way = UnderWay(queue.under_way, queue.tokens, queue.waiting > 0)
                self._limiter.on_call(record, under_way, now)
                self._follow_limiter(self._limiter)
            queue.end_call(entry.prefix_id, now)
            if queue.waiting:
                queue.admit(now)

    def _follow_limiter(self, limiter: Limiter) -> None:
        self._queue.limit, self._queue.room = limiter.limit, limiter.room

    def end(self, prefix_id: str) -> None:
        """A question is over: the next may come in."""
        with self._lock:
            self._queue.end(prefix_id, self._clock())

    def poll(self) -> float:
        """Look who is idle or has waited too long; seconds until it is worth while to look again."""
        with self._lock:
            return self._queue.poll(self._clock())

    def _enlist(self, ticket: Ticket, wake: Callable[[], bool]) -> bool:
        with self._lock:
            if not ticket.admitted:
                ticket.wake.append(wake)
                return True
        return False

    def _look(self) -> float:
        # Whoever has calls in flight now may fall idle unseen, so look again after that time at the latest.
        return max(_SHORTEST_LOOK_S, min(self.poll(), self._queue.idle_s))

    def _leave(self, entry: Pass, ticket: Ticket, wake: Callable[[], bool]) -> None:
        entry.ticket = None
        with self._lock:
            if not ticket.admitted:
                ticket.wake.remove(wake)
            self._queue.leave(ticket, self._clock())

    def _go(self, entry: Pass, ticket: Ticket) -> None:
        entry.ticket = None
        entry.waited_ms = (self._clock() - ticket.since) * 1000.0
