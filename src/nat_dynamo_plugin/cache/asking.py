"""Ask a store that is elsewhere, blocking or awaiting, within a time that holds whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as NotInTime
from typing import Generic, TypeVar

from nat_dynamo_plugin.http.flow import IO, AsyncIO

T = TypeVar("T")


class Ask(Generic[T]):
    """What a flow yields to have something done by a thread; see `http.flow.Operation`.

    One way for threads and for event loops, so that the same is decided on both.

    Args:
        pool: whose thread.
        do: what is done; it goes on if it takes too long, and nobody hears of it.
        timeout_s: seconds that it may take.
        late: gives the answer in place of one that did not come in time.
    """

    __slots__ = ("_do", "_late", "_pool", "_timeout_s")

    def __init__(self, pool: Executor, do: Callable[[], T], timeout_s: float, late: Callable[[], T]) -> None:
        self._pool = pool
        self._do = do
        self._timeout_s = timeout_s
        self._late = late

    def run(self, io: IO) -> T:
        """Block."""
        try:
            return self._pool.submit(self._do).result(self._timeout_s)
        except NotInTime:
            return self._late()

    async def run_async(self, io: AsyncIO) -> T:
        """Await."""
        future: Future[T] = self._pool.submit(self._do)
        waiting = asyncio.wrap_future(future)
        await asyncio.wait((waiting,), timeout=self._timeout_s)
        return waiting.result() if waiting.done() else self._late()
