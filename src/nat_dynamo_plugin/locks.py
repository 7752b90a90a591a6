"""A lock that nobody deadlocks on: not a destructor that comes at a bad moment, and not the child of a fork."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

logger = logging.getLogger(__name__)

_resets: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def after_fork(owner: object, reset: Callable[[Any], None]) -> None:
    """Have `reset(owner)` called in the child of every fork, as long as the owner lives; first come, first called.

    Of the parent's threads only the one that forked lives on there, so what others held or were about to do is lost.
    """
    _resets[owner] = reset


def _reset_all() -> None:
    for owner, reset in list(_resets.items()):
        reset(owner)


os.register_at_fork(after_in_child=_reset_all)


class Lock:
    """One thread at a time is in the `with` block.

    Python may run a destructor at any moment, also in a thread that is in the block, and a destructor may end a call.
    What can be called from one must therefore not wait for the lock: it says what is to be done with `soon`.
    """

    __slots__ = ("__weakref__", "_later", "_lock")

    def __init__(self) -> None:
        self._reset()
        after_fork(self, Lock._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._later: deque[Callable[[], None]] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._later:
            self._do_all()  # in the order in which it was said

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()
        if self._later:
            self._run()

    def soon(self, do: Callable[[], None]) -> None:
        """Have this done under the lock, here if it is free, else by whoever holds it. What it raises is logged."""
        self._later.append(do)
        self._run()

    def _run(self) -> None:
        # Whoever finds the lock taken leaves the rest to its holder, who looks again after it has let go.
        while self._later and self._lock.acquire(blocking=False):
            try:
                self._do_all()
            finally:
                self._lock.release()

    def _do_all(self) -> None:
        later = self._later
        while later:
            try:
                later.popleft()()
            except Exception:
                logger.warning("Something could not be done", exc_info=True)
