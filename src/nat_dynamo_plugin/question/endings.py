"""When a question is over: the one place that knows.

A question is under way while something holds it: a scope of its id, a block of `held`, or a NAT workflow run that makes
calls under an id nobody opened a scope for. It is over when the last of them lets go, or when somebody says so (`end`).
Whoever counts by questions listens here, and is told exactly once.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from nat.builder.context import ContextState

from nat_dynamo_plugin.locks import after_fork
from nat_dynamo_plugin.question.once import warn_once

logger = logging.getLogger(__name__)

MAX_IDS_A_RUN = 1024
"""Questions that one run holds at once; the oldest counts as over first."""

_STATE = ContextState.get()


class QuestionListener(Protocol):
    """Wants to know when a question is over."""

    def question_ended(self, prefix_id: str) -> None:
        """The question of this prefix id is over. Must not raise and must not block."""


class _Run:
    """A workflow run under way, and the ids of the questions it holds, oldest first."""

    __slots__ = ("key", "prefix_ids", "stream")

    def __init__(self, stream: Any, gone: Callable[[_Run], None]) -> None:
        self.key = id(stream)
        # Called by the garbage collector, perhaps while this very thread holds a lock: nothing may be done there.
        self.stream: weakref.ref[Any] = weakref.ref(stream, lambda _: gone(self))
        self.prefix_ids: dict[str, None] = {}


class _Held:
    """What holds a question, and whether somebody has said that it ends with that."""

    __slots__ = ("ends", "runs", "scopes")

    def __init__(self) -> None:
        self.scopes: set[object] = set()
        self.runs: set[_Run] = set()
        self.ends = False


class Questions:
    """The questions under way in this process, and who wants to know of their ends. Safe across threads.

    Listeners are not kept alive.
    """

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._runs: dict[int, _Run] = {}  # by the id of NAT's event stream
        self._gone: deque[_Run] = deque()
        self._listeners: tuple[weakref.ref[QuestionListener], ...] = ()
        self._lock = threading.Lock()
        after_fork(self, Questions.renew)

    def renew(self) -> None:
        """Make the lock anew, after a fork."""
        self._lock = threading.Lock()

    def listen(self, listener: QuestionListener) -> None:
        """Tell a listener, as long as it lives, of every question that ends."""
        with self._lock:
            alive = [known for known in self._listeners if known() not in (None, listener)]
            self._listeners = (*alive, weakref.ref(listener))

    def hold(self, prefix_id: str, scope: object) -> None:
        """Note that a scope of this id is open."""
        self._see_gone()
        with self._lock:
            self._held.setdefault(prefix_id, _Held()).scopes.add(scope)

    def release(self, prefix_id: str, scope: object, *, ends: bool = True) -> None:
        """Note that a scope was left; nothing happens if it was already.

        Args:
            prefix_id: the question's id.
            scope: what was given to `hold`.
            ends: whether the question is over if no other scope of it is open.
        """
        with self._lock:
            held = self._held.get(prefix_id)
            if held is None or scope not in held.scopes:
                return
            held.scopes.remove(scope)
            over = not held.scopes and (ends or held.ends)
            if over or not (held.scopes or held.runs):
                del self._held[prefix_id]
        if over:
            self._tell(prefix_id)

    def end(self, prefix_id: str) -> None:
        """Say that a question is over: now, or as soon as the scopes of it that are open are left."""
        with self._lock:
            held = self._held.get(prefix_id)
            if held is not None and held.scopes:
                held.ends = True
                return
            self._held.pop(prefix_id, None)
        self._tell(prefix_id)

    def watch(self, prefix_id: str) -> None:
        """See the end of the workflow run under way in this context, which makes calls of a question.

        NAT's event stream is subscribed to once a run, however many calls and questions the run has. Of a run that was
        cancelled NAT says nothing; it is over when its stream is gone, and that is seen with the next question.
        """
        stream = _STATE.event_stream.get()
        held, run = self._held.get(prefix_id), self._runs.get(id(stream))
        if held is None or run is None or run not in held.runs or run.stream() is not stream:
            self._watch(stream, prefix_id)  # all others are on the path of every call of a workflow

    def _watch(self, stream: Any, prefix_id: str) -> None:
        self._see_gone()
        with self._lock:
            run = self._runs.get(id(stream))
            is_new = run is None or run.stream() is not stream
            if run is None or is_new:
                run = self._runs[id(stream)] = _Run(stream, self._gone.append)
            run.prefix_ids.pop(prefix_id, None)
            run.prefix_ids[prefix_id] = None
            self._held.setdefault(prefix_id, _Held()).runs.add(run)
            too_many = next(iter(run.prefix_ids)) if len(run.prefix_ids) > MAX_IDS_A_RUN else None
            if too_many is not None:
                del run.prefix_ids[too_many]
        if too_many is not None:
            self._let_go(run, too_many)
        if is_new:
            stream.subscribe(on_complete=partial(self._run_ended, run))

    def _see_gone(self) -> None:
        while self._gone:
            self._run_ended(self._gone.popleft())

    def _run_ended(self, run: _Run) -> None:
        with self._lock:
            if self._runs.get(run.key) is run:
                del self._runs[run.key]
            prefix_ids, run.prefix_ids = run.prefix_ids, {}
        for prefix_id in prefix_ids:
            self._let_go(run, prefix_id)

    def _let_go(self, run: _Run, prefix_id: str) -> None:
        with self._lock:
            held = self._held.get(prefix_id)
            if held is None or run not in held.runs:
                return
            held.runs.discard(run)
            if held.runs or held.scopes:
                return
            del self._held[prefix_id]
        self._tell(prefix_id)

    def _tell(self, prefix_id: str) -> None:
        for known in self._listeners:
            listener = known()
            if listener is None:
                continue
            try:
                listener.question_ended(prefix_id)
            except Exception as error:
                warn_once(logger, ("ending", repr(type(listener))), "%r failed", listener, error=error)


questions = Questions()
"""The questions of this process."""

on_question_end = questions.listen
"""Tell a `QuestionListener`, as long as it lives, of every question that ends."""


@contextmanager
def held(prefix_id: str) -> Iterator[None]:
    """Let a question be under way for a block, whatever scopes of its id are opened and left inside.

    Unlike a scope it sets nothing, so a generator may hold a question while its consumer runs.
    """
    holder = object()
    questions.hold(prefix_id, holder)
    try:
        yield
    finally:
        questions.release(prefix_id, holder)
