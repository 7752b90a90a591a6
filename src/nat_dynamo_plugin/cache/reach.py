"""Whether a store can be asked: a breaker that no caller has to probe."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable

logger = logging.getLogger(__name__)

TOLERANCE = 3
"""Failures in a row after which the store is left alone."""
FIRST_LOOK_S = 0.25
LONGEST_LOOK_S = 10.0
"""A store that is left alone is looked at by a thread of its own, first after so long, at last so far apart."""


class Reach:
    """Up or down. Says each change once.

    Args:
        where: the store, for the log; holds no password.
        probe: raises unless the store answers. Called in a thread, and only while the store is down.
    """

    def __init__(self, where: str, probe: Callable[[], object]) -> None:
        self.where = where
        self._probe = weakref.WeakMethod(probe) if hasattr(probe, "__self__") else (lambda: probe)
        self._lock = threading.Lock()
        self._failures = 0
        self.is_down = False
        self.up = threading.Event()
        self.up.set()

    def worked(self) -> None:
        """An answer came."""
        if self._failures:
            self._failures = 0

    def failed(self, why: object) -> None:
        """No answer came, or none in time."""
        with self._lock:
            self._failures += 1
            if self.is_down or self._failures < TOLERANCE:
                return
            self.is_down = True
            self.up.clear()
        logger.warning("The response cache at %s can not be asked (%s); calls go on without it", self.where, why)
        self.watch()

    def forked(self) -> None:
        """Go on in the child of a fork, where no thread looks."""
        self._lock = threading.Lock()
        if self.is_down:
            self.watch()

    def watch(self) -> None:
        """Look at the store until it is up again."""
        threading.Thread(target=_watch, args=(weakref.ref(self),), name="nat-dynamo-cache-watch", daemon=True).start()

    def look(self) -> bool | None:
        """Ask the store; whether it is up now, `None` if there is none any more."""
        probe = self._probe()
        if probe is None:
            return None
        try:
            probe()
        except Exception:
            return False
        with self._lock:
            self._failures = 0
            self.is_down = False
            self.up.set()
        logger.warning("The response cache at %s can be asked again", self.where)
        return True


def _watch(reach: weakref.ref[Reach]) -> None:
    pause = FIRST_LOOK_S
    ended = threading.Event()
    while True:
        ended.wait(pause)
        one = reach()
        if one is None or one.look() is not False:
            return
        del one
        pause = min(LONGEST_LOOK_S, pause * 2.0)
