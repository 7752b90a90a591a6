"""An async transport that may be used from any event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from weakref import WeakKeyDictionary

import httpx


class AnyLoopTransport(httpx.AsyncBaseTransport):
    """Keeps the connections of one event loop and gives every other loop a transport of its own.

    A connection belongs to the event loop it was opened in. The synchronous calls of frameworks that are asynchronous
    inside (Strands' `agent(...)`, ADK's `Runner.run`) start a loop for each call, in which a connection of another
    loop fails with "Event loop is closed". Connections of such passing loops are not kept after the answer, because
    nobody could close them once their loop is gone.

    Args:
        make: makes a transport that keeps at most the given number of idle connections; `None` for its default.
    """

    def __init__(self, make: Callable[[int | None], httpx.AsyncBaseTransport]) -> None:
        self._make = make
        self._home = asyncio.get_running_loop()
        self._transport = make(None)
        self._others: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncBaseTransport] = WeakKeyDictionary()
        self._lock = threading.Lock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request over a connection of the running loop."""
        loop = asyncio.get_running_loop()
        if loop is self._home:
            return await self._transport.handle_async_request(request)
        with self._lock:
            transport = self._others.get(loop)
            if transport is None:
                transport = self._others[loop] = self._make(0)
        return await transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections of the loop that this was made in."""
        await self._transport.aclose()
