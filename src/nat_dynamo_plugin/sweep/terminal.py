"""What a sweep does to the terminal and to Ctrl-C while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import optuna


@contextlib.contextmanager
def ctrl_c() -> Iterator[threading.Event]:
    """Make the first Ctrl-C cancel this task, wherever it is, and the second one stop the process.

    NAT runs its commands in loops of nest_asyncio, in which Ctrl-C raises KeyboardInterrupt in whatever code is running
    and nothing is cleaned up. The event tells whether it was Ctrl-C.
    """
    signalled = threading.Event()
    task = asyncio.current_task()
    if threading.current_thread() is not threading.main_thread() or task is None:
        yield signalled
        return
    loop = asyncio.get_running_loop()

    def handle(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        signalled.set()
        loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield signalled
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """One progress bar for the sweep instead of two for each of its runs, and only warnings of NAT and Optuna."""
    loggers = [logging.getLogger(name) for name in ("nat.plugins.eval", "nat.builder", "nat.runtime")]
    levels = [one.level for one in loggers]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for one in loggers:
        one.setLevel(logging.WARNING)
    try:
        # NAT's bars go to whatever standard error is when a run begins; log handlers keep the stream that they have.
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
