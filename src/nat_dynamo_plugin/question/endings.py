"""When a question is over: the one place that knows.

A question is under way while something holds it: a scope of its id, a block of `held`, or a NAT workflow run that makes
calls under an id nobody opened a scope for. It is over when the last of them lets go, or when somebody says so (`end`).
Whoever counts by questions listens here, and is told exactly once.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

from nat.builder.context import ContextState

from nat_dynamo_plugin.locks import after_fork
from nat_dynamo_plugin.question.once import warn_once

logger = logging.getLogger(__name__)

MAX_RUNS = 16_384
"""Workflow runs watched at once; the oldest counts as over first. NAT does not say when a run was cancelled."""
MAX_IDS_A_RUN = 1024
"""Questions that one run holds at once; the oldest counts as over first."""

_STATE = ContextState.get()


class QuestionListener(Protocol):
    """Wants to know when a question is over."""

    def question_ended(self, prefix_id: str) -> None:
        """The question of this prefix id is over. Must not raise and must not block."""


class _Run:
    """A workflow run under way, and the ids of the questions it holds, oldest first."""

    __slots__ = ("prefix_ids",)

    def __init__(self) -> None:
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
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._listeners: WeakSet[QuestionListener] = WeakSet()
        self._lock = threading.Lock()
        after_fork(self, Questions.renew)

    def renew(self) -> None:
        """Make the lock anew, after a fork."""
        self._lock = threading.Lock()

    def listen(self, listener: QuestionListener) -> None:
        """Tell a listener, as long as it lives, of every question that ends."""
        with self._lock:
            self._listeners.add(listener)

    def hold(self, prefix_id: str, scope: object) -> None:
        """Note that a scope of this id is open."""
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

    def watch(self, run_id: str, prefix_id: str) -> None:
        """See the end of the workflow run under way in this context, which makes calls of a question.

        NAT's event stream is subscribed to once a run, however many calls and questions the run has.
        """
        held, run = self._held.get(prefix_id), self._runs.get(run_id)
        if held is not None and run in held.runs:  # on the path of every call of a workflow
            return
        dropped: list[tuple[_Run, str]] = []
        with self._lock:
            run = self._runs.get(run_id)
            is_new = run is None
            if run is None:
                run = self._runs[run_id] = _Run()
                if len(self._runs) > MAX_RUNS:
                    _, oldest = self._runs.popitem(last=False)
                    dropped += [(oldest, name) for name in oldest.prefix_ids]
            run.prefix_ids.pop(prefix_id, None)
            run.prefix_ids[prefix_id] = None
            self._held.setdefault(prefix_id, _Held()).runs.add(run)
            if len(run.prefix_ids) > MAX_IDS_A_RUN:
                oldest_id = next(iter(run.prefix_ids))
                del run.prefix_ids[oldest_id]
                dropped.append((run, oldest_id))
        for dropped_run, dropped_id in dropped:
            self._let_go(dropped_run, dropped_id)
        if is_new:
            _STATE.event_stream.get().subscribe(on_complete=lambda: self._run_ended(run_id))

    def _run_ended(self, run_id: str) -> None:
        with self._lock:
            run = self._runs.pop(run_id, None)
        for prefix_id in () if run is None else run.prefix_ids:
            self._let_go(run, prefix_id)

    def _let_go(self, run: _Run | None, prefix_id: str) -> None:
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
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
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
