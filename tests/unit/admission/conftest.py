from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest


@pytest.fixture
def in_child() -> Callable[[Callable[[], bool]], bool]:
    """Fork, and say whether a check is true in the child; false if it raises or hangs."""

    def fork(check: Callable[[], bool]) -> bool:
        pid = os.fork()
        if pid == 0:
            good = False
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(60)
                good = check()
            finally:
                os._exit(0 if good else 1)
        return os.waitpid(pid, 0)[1] == 0

    return fork
