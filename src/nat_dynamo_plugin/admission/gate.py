"""The gate: lets questions go or wait, for callers in threads and in any event loop.

A question holds its place from its first call until it ends or has been idle for a while, or is set aside. Who goes
next is decided in `admission.queue`.
"""

from __future__ import annotations

import contextlib
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from time import monotonic
from typing import Self

from nat_dynamo_plugin.admission.goodput import Decision, GoodputLimit
from nat_dynamo_plugin.admission.limits import Limiter, UnderWay
from nat_dynamo_plugin.admission.prompts import read_prompt
from nat_dynamo_plugin.admission.questions import UNKNOWN_PROMPT, Question
from nat_dynamo_plugin.admission.queue import IDLE_S, MAX_WAIT_S, AdmissionQueue
from nat_dynamo_plugin.admission.turn import LoopTurn, ThreadTurn, in_loop
from nat_dynamo_plugin.locks import Lock, after_fork
from nat_dynamo_plugin.telemetry.record import CallRecord

logger = logging.getLogger(__name__)

_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.01, 3600.0
_NEW, _WAITS, _IN, _LEFT = range(4)

_gates: list[weakref.ref[Gate]] = []


def gates() -> list[Gate]:
    """All gates in use, for metrics."""
    return [gate for reference in list(_gates) if (gate := reference()) is not None]


class Gate:
    """Lets so many questions be under way as there is room for.

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
            self._queue.room = self._limiter.room
        self._clock = clock
        self._lock = Lock()
        self._warned = False
        after_fork(self, Gate._reset)
        _gates.append(weakref.ref(self, _gates.remove))

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
        """Tokens that their prompts may have; `None` where `limit` bounds them, or nothing does."""
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
    def history(self) -> list[Decision]:
        """What an adaptive limit has decided lately; empty for a number."""
        return list(self._limiter.history) if isinstance(self._limiter, GoodputLimit) else []

    def change(self, limit: int | None, idle_s: float, max_wait_s: float) -> None:
        """Go by something else from now on; without a number by the limit there is."""
        with self._lock:
            queue = self._queue
            queue.idle_s, queue.max_wait_s = idle_s, max_wait_s
            if limit is not None:
                self._limiter, queue.limit, queue.room = None, limit, None
            queue.admit(self._clock())

    def place(
        self,
        prefix_id: str,
        ancestors: tuple[str, ...] = (),
        work_tokens: float | None = None,
        body: bytes | None = None,
    ) -> Place:
        """A place for one call, to be entered with `with` or `async with`, which waits until the call may go.

        Args:
            prefix_id: the call's question.
            ancestors: questions that this one was opened in; a place of theirs covers it, or they would wait for
                each other.
            work_tokens: expected output tokens of the whole question, if known.
            body: the request's, to see what the question's prompts begin with; read once a question.
        """
        return Place(self, prefix_id, ancestors, work_tokens, body)

    def end(self, prefix_id: str) -> None:
        """A question is over: the next may come in."""
        self._lock.soon(lambda: self._queue.end(prefix_id, self._clock()))

    def on_capacity(self, tokens: int, workers: int) -> None:
        """The cluster's KV caches hold this many tokens, of so many workers."""
        with self._lock:
            if self._limiter is not None:
                self._limiter.on_capacity(tokens, workers)
                self._follow(self._limiter)

    def poll(self) -> float:
        """Look who is idle or has waited too long; seconds until it is worth while to look again."""
        with self._lock:
            return self._queue.poll(self._clock())

    def _follow(self, limiter: Limiter) -> None:
        self._queue.room = limiter.room
        self._queue.admit(self._clock())

    def _reset(self) -> None:
        # In the child of a fork: the calls that were in flight or waited are the parent's.
        self._queue = self._queue.emptied()

    def _ask(self, place: Place) -> Question:
        body, prompt = place.body, UNKNOWN_PROMPT
        while True:
            with self._lock:
                if place.state != _NEW:
                    raise RuntimeError("A place at the gate is entered once; ask the gate for another")
                queue = self._queue
                host = queue.host(place.prefix_id, place.ancestors)
                if body is None or queue.knows(host):
                    question = queue.begin(host, place.work_tokens, self._clock(), prompt)
                    place.question = question
                    place.state = _IN if question.admitted else _WAITS
                    return question
            # Once a question, and a long body takes a while, so outside the lock.
            prompt, body, place.body = read_prompt(body), None, None

    def _let_past(self, place: Place, question: Question) -> None:
        """Let a call in that can not wait where it is."""
        with self._lock:
            self._queue.push_in(question, self._clock())
            place.state = _IN
            warned, self._warned = self._warned, True
        if not warned:
            logger.warning(
                "A call of %r did not wait at the gate of %s: it is synchronous and was made in an event loop, which "
                "waiting would have stopped. Use the asynchronous call there (ainvoke, acall, await ...), or a thread "
                "(asyncio.to_thread); max_active_prefixes does not bound calls like this one",
                place.prefix_id,
                self.model,
            )

    def _went_in(self, place: Place, asked: float) -> None:
        with self._lock:
            place.waited_ms = (self._clock() - asked) * 1000.0
            if place.state == _WAITS:  # nobody has left it meanwhile
                place.state = _IN

    def _leave(self, place: Place, record: CallRecord | None) -> None:
        """Give a call's place back. Needs the lock."""
        state, question = place.state, place.question
        place.state, place.question = _LEFT, None
        if question is None:
            return
        queue, now = self._queue, self._clock()
        if state == _WAITS:
            if place.wake in question.wake:
                question.wake.remove(place.wake)
            queue.leave(question, now)
            place.wake()  # whoever waits for it need not any more
            return
        if record is not None:
            queue.answered(question, record)
            if self._limiter is not None:
                self._limiter.on_call(record, UnderWay(queue.counted, queue.tokens, queue.kept_out), now)
        queue.end_call(question, now)
        if self._limiter is not None:
            self._follow(self._limiter)

    def _enlist(self, question: Question, wake: Callable[[], bool]) -> None:
        with self._lock:
            if not question.admitted:
                question.wake.append(wake)

    def _look(self, question: Question) -> float:
        """How long to wait before looking after the time, which is for the callers of who has waited longest."""
        # Whoever has calls in flight now may fall idle unseen, so look again after that time at the latest.
        longest = min(self._queue.idle_s, _LONGEST_LOOK_S)
        if question is not self._queue.oldest:
            return longest
        return max(_SHORTEST_LOOK_S, min(self.poll(), longest))


class Place:
    """One call's place at the gate. Entering waits, leaving ends the call; an entry that fails or is cancelled leaves
    nothing behind.

    Leaving is `end` too, which may be called from any thread, also from a destructor, and as often as one likes.

    A blocking `with` in a running event loop does not wait, because that would stop the loop and all its calls: the
    call goes in, counts as under way, and the gate says so once in the log.

    Attributes:
        waited_ms: how long entering waited, in ms; `None` if it did not have to.
        give_up_at: when a blocking entry gives up with a `TimeoutError`, in seconds of `time.monotonic`; `None` for
            never. An async one is cancelled by whoever waits for it.
    """

    __slots__ = (
        *("_gate", "_record", "ancestors", "body", "give_up_at", "prefix_id"),
        *("question", "state", "waited_ms", "wake", "work_tokens"),
    )

    def __init__(
        self, gate: Gate, prefix_id: str, ancestors: tuple[str, ...], work_tokens: float | None, body: bytes | None
    ) -> None:
        """See `Gate.place`, which makes them."""
        self.prefix_id = prefix_id
        self.ancestors = ancestors
        self.work_tokens = work_tokens
        self.body = body
        self.waited_ms: float | None = None
        self.give_up_at: float | None = None
        self._gate = gate
        self._record: CallRecord | None = None
        # The gate's.
        self.state = _NEW
        self.question: Question | None = None
        self.wake: Callable[[], bool] = bool

    def __enter__(self) -> Self:
        question = self._gate._ask(self)
        if not question.admitted:
            if not in_loop():
                turn = ThreadTurn()
                with self._waiting(question, turn.wake):
                    while self._has_to_wait(question):
                        left = inf if self.give_up_at is None else self.give_up_at - monotonic()
                        if left <= 0:
                            raise TimeoutError("no place at the gate in time")
                        turn.wait(min(self._gate._look(question), left))
            else:
                self._gate._let_past(self, question)
        return self

    async def __aenter__(self) -> Self:
        question = self._gate._ask(self)
        if not question.admitted:
            turn = LoopTurn()
            with self._waiting(question, turn.wake):
                while self._has_to_wait(question):
                    await turn.wait(self._gate._look(question))
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    async def __aexit__(self, *_: object) -> None:
        self.end()

    def answered(self, record: CallRecord) -> None:
        """Note the call's record, which tells an adaptive limit how the server is doing; before leaving."""
        self._record = record

    def end(self, record: CallRecord | None = None) -> None:
        """Leave, if nobody has yet; with the call's record, as `answered` takes it."""
        if self.state != _LEFT:
            self._gate._lock.soon(partial(self._gate._leave, self, record or self._record))

    def _has_to_wait(self, question: Question) -> bool:
        return not question.admitted and self.state == _WAITS

    @contextlib.contextmanager
    def _waiting(self, question: Question, wake: Callable[[], bool]) -> Iterator[None]:
        asked = self._gate._clock()
        self.wake = wake
        try:
            self._gate._enlist(question, wake)
            yield
        except BaseException:
            self.end()
            raise
        self._gate._went_in(self, asked)
