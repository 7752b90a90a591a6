"""Single flight: of equal calls that come at once one is sent, and the others wait for its answer.

For blocking threads and any number of event loops of a process together. A waiter takes nothing from the one it waits
for: neither its failure nor its cancellation, and its own cancellation is nobody else's.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from typing import NamedTuple

from nat_dynamo_plugin.cache.entry import Entry
from nat_dynamo_plugin.http.flow import IO, AsyncIO
from nat_dynamo_plugin.locks import after_fork


class Landed(NamedTuple):
    """How a flight ended.

    Attributes:
        entry: the answer; `None` if there is none to be kept.
        left: whether whoever sent the call left before its answer was there, so that another one is to send it.
    """

    entry: Entry | None
    left: bool = False


class Flight:
    """One call under way that others may wait for."""

    __slots__ = ("_future", "_owner", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self._owner = _who()
        self._future: Future[Landed] = Future()

    @property
    def is_ours(self) -> bool:
        """Whether the caller makes it itself, as one does who opens several streams before reading any."""
        return self._owner == _who()

    def land(self, landed: Landed) -> None:
        """Tell all who wait."""
        with suppress(InvalidStateError):  # it has landed
            self._future.set_result(landed)

    def wait(self, timeout_s: float) -> Wait:
        """What a flow yields to wait at most so long; gives `Landed`, or `None` if it takes longer."""
        return Wait(self._future, timeout_s)


class Wait:
    """Wait for a flight; see `http.flow.Operation`."""

    __slots__ = ("_future", "_timeout_s")

    def __init__(self, future: Future[Landed], timeout_s: float) -> None:
        self._future = future
        self._timeout_s = timeout_s

    def run(self, io: IO) -> Landed | None:
        """Block; but not an event loop, which may have to carry what is waited for."""
        if asyncio._get_running_loop() is not None:
            return None
        try:
            return self._future.result(self._timeout_s)
        except NotInTime:
            return None

    async def run_async(self, io: AsyncIO) -> Landed | None:
        """Await."""
        waiting = asyncio.wrap_future(self._future)
        # Not `wait_for`, which would cancel the flight with its waiter.
        await asyncio.wait((waiting,), timeout=self._timeout_s)
        return waiting.result() if waiting.done() else None


def _who() -> tuple[int, int]:
    loop = asyncio._get_running_loop()
    return threading.get_ident(), 0 if loop is None else id(asyncio.current_task(loop))


class Flights:
    """The calls under way, by key."""

    def __init__(self) -> None:
        self._reset()
        after_fork(self, Flights._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, Flight] = {}

    def join(self, key: str) -> tuple[Flight, bool]:
        """The flight of this key, and whether the caller is to make it: then it must `land` it, whatever happens."""
        with self._lock:
            flight = self._under_way.get(key)
            if flight is not None:
                return flight, False
            flight = self._under_way[key] = Flight(key)
            return flight, True

    def land(self, flight: Flight, landed: Landed) -> None:
        """End a flight."""
        # Without the lock: the end of a call may be told by a destructor, and one dict operation is atomic.
        if self._under_way.get(flight.key) is flight:
            self._under_way.pop(flight.key, None)
        flight.land(landed)

    def __len__(self) -> int:
        return len(self._under_way)
