"""Answers that were dropped without being closed: their connections are closed and their calls ended all the same.

Python may destroy an object at any moment, also while a lock of ours is held; so the destructor only puts the answer
into a queue (`SimpleQueue.put` is made for that), and a thread does the rest.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from nat_dynamo_plugin.http.call import Call

logger = logging.getLogger(__name__)

_Lost = tuple[Call, Any, Any, asyncio.AbstractEventLoop | None]

_being_read: set[Any] = set()
"""What reads the answers of blocking clients.

httpx's connection pool closes an answer's connection in a generator's end, under a lock. If the collector ended it, in
a thread that has the lock, that thread would wait for itself; so nothing here is garbage before it is closed.
"""
keep, release = _being_read.add, _being_read.discard


_collecting_in = 0
"""The thread in which Python's collector runs, or 0."""


def _note(phase: str, _info: object) -> None:
    global _collecting_in
    _collecting_in = threading.get_ident() if phase == "start" else 0


def in_collector() -> bool:
    """Whether Python's collector has called this, in whatever the thread was at: with any lock in its hands."""
    return _collecting_in == threading.get_ident()


class _Keeper:
    def __init__(self) -> None:
        self.queue: SimpleQueue[_Lost] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def ensure(self) -> None:
        # After a fork no thread but the caller's lives on.
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._end_all, name="dynamo-lost-answers", daemon=True)
                    self._thread.start()
                    if _note not in gc.callbacks:
                        gc.callbacks.append(_note)

    def _end_all(self) -> None:
        while True:
            call, stream, rest, loop = self.queue.get()
            try:
                if loop is None:
                    stream.close()
                elif not loop.is_closed():
                    with suppress(RuntimeError):  # closed meanwhile
                        loop.call_soon_threadsafe(_close_in, loop, stream)
            except Exception:
                logger.debug("A lost answer could not be closed", exc_info=True)
            finally:
                call.finish()
                release(rest)
                del call, stream, rest, loop


_closing: set[asyncio.Task[None]] = set()


def _close_in(loop: asyncio.AbstractEventLoop, stream: Any) -> None:
    task = loop.create_task(stream.aclose())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_keeper = _Keeper()
watch = _keeper.ensure
"""Be ready for answers that are lost; cheap when it is already."""


def let_go(call: Call, stream: Any, rest: Any, loop: asyncio.AbstractEventLoop | None) -> None:
    """Close an answer and end its call, soon and elsewhere. May be called from a destructor."""
    _keeper.queue.put((call, stream, rest, loop))
