"""What a caller that waits for its turn is woken with, in a thread or in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class ThreadTurn:
    """Wakes a thread."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def wake(self) -> bool:
        """Wake the one who waits, from any thread; whether it may still be there."""
        self._event.set()
        return True

    def wait(self, seconds: float) -> None:
        """Wait to be woken, but not longer than this."""
        self._event.wait(seconds)
        self._event.clear()


class LoopTurn:
    """Wakes a task; make it in its event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def wake(self) -> bool:
        """Wake the one who waits, from any thread; whether it may still be there."""
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:  # the loop is closed
            return False
        return True

    async def wait(self, seconds: float) -> None:
        """Wait to be woken, but not longer than this."""
        # Time out in the loop, not in the queue: the turn may come at the same moment.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()


def in_loop() -> bool:
    """Whether this code runs in an event loop, which blocking would stop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
