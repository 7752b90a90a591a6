"""What stands between a caller and the server, once for sync and async: flows, and the drivers that run them.

A layer's `flow` is a generator, as `httpx.Auth.auth_flow` is. It sends the call on with
`reply = yield from send(call)`, as often as it likes, yields what else it wants done, and returns the reply. One that
has nothing to do after that may `return send(call)` instead, without being a generator. A driver does what is yielded,
blocking or awaiting; what goes wrong is raised where it was yielded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

import anyio

from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.telemetry.kinds import Kind

MAX_ERROR_BYTES = 65_536
"""What layers read of an error answer; of a longer one the beginning is passed on, as text."""


class Failure(Exception):
    """No answer, or no whole one, because the connection failed; the same for every HTTP library.

    Attributes:
        kind: `connect`, `read`, `write`, `protocol`, `pool`, or one of these with ` timeout`; `deadline`.
        original: the HTTP library's exception, which the caller gets; `None` for a time that is over by our own clock,
            of which the shell makes the library's.
    """

    def __init__(self, kind: str, original: BaseException | None, text: str | None = None) -> None:
        super().__init__(str(original) if text is None else text)
        self.kind = kind
        self.original = original


def too_late(call: Call) -> Failure:
    """What to raise when a call's deadline is over; its record says so too."""
    record = call.record
    record.error = f"the time for this call was over after {call.now_ms / 1000.0:.1f} s"
    record.error_type = Kind.DEADLINE.value
    return Failure("deadline", None, record.error)


class IO(Protocol):
    """What a blocking shell can do for a flow; `AsyncIO` is its twin."""

    def transmit(self, call: Call) -> Reply:
        """Send the call as it stands."""

    def read(self, reply: Reply, most: int) -> bytes:
        """Read a reply's body."""

    def close(self, reply: Reply) -> None:
        """Leave a reply."""


class AsyncIO(Protocol):
    """What an async shell can do for a flow."""

    async def transmit(self, call: Call) -> Reply:
        """Send the call as it stands."""

    async def read(self, reply: Reply, most: int) -> bytes:
        """Read a reply's body."""

    async def close(self, reply: Reply) -> None:
        """Leave a reply."""


class Operation(Protocol):
    """What a flow may yield."""

    def run(self, io: IO) -> Any:
        """Do it, blocking."""

    async def run_async(self, io: AsyncIO) -> Any:
        """Do it, awaiting."""


Flow = Generator[Operation, Any, Reply]
Send = Callable[[Call], Flow]


class Layer(Protocol):
    """Stands between the caller and the server. One for an LLM, shared by all its clients, threads and loops."""

    def flow(self, call: Call, send: Send) -> Flow:
        """Do what is to be done for one call; `send` goes on to the next layer."""


class Transmit:
    """Send the call to the server; gives the reply, its body unread. What the innermost layer's `send` does."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call

    def run(self, io: IO) -> Reply:
        """Block until the headers are there."""
        return io.transmit(self.call)

    async def run_async(self, io: AsyncIO) -> Reply:
        """Await the headers."""
        return await io.transmit(self.call)


class ReadBody:
    """Read a reply's body, which can still be passed on; gives what was read.

    Args:
        reply: whose.
        most: bytes after which no more is read, so that no server fills the memory; a last piece is not cut. 0 reads
            the first piece.
    """

    __slots__ = ("most", "reply")

    def __init__(self, reply: Reply, most: int) -> None:
        self.reply = reply
        self.most = most

    def run(self, io: IO) -> bytes:
        """Read, blocking."""
        content = self.reply.content
        return io.read(self.reply, self.most) if content is None else content

    async def run_async(self, io: AsyncIO) -> bytes:
        """Read, awaiting."""
        content = self.reply.content
        return await io.read(self.reply, self.most) if content is None else content


class Close:
    """Leave a reply that the caller will not get, so that its connection is free."""

    __slots__ = ("reply",)

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def run(self, io: IO) -> None:
        """Close, blocking."""
        io.close(self.reply)

    async def run_async(self, io: AsyncIO) -> None:
        """Close, awaiting."""
        await io.close(self.reply)


class Sleep:
    """Wait so many seconds."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def run(self, io: IO) -> None:
        """Block."""
        time.sleep(self.seconds)

    async def run_async(self, io: AsyncIO) -> None:
        """Await."""
        await anyio.sleep(self.seconds)


class BothWays(AbstractContextManager[Any], AbstractAsyncContextManager[Any], Protocol):
    """A context manager for `with` and for `async with`."""


class Enter:
    """Enter a context manager, waiting if it must; gives what entering gives. The layer leaves it, at `on_end`."""

    __slots__ = ("manager",)

    def __init__(self, manager: BothWays) -> None:
        self.manager = manager

    def run(self, io: IO) -> Any:
        """`with`."""
        return self.manager.__enter__()

    async def run_async(self, io: AsyncIO) -> Any:
        """`async with`."""
        return await self.manager.__aenter__()


def _transmit(call: Call) -> Flow:
    reply: Reply = yield Transmit(call)
    return reply


def chained(layers: Iterable[Layer]) -> Send:
    """One `send` that goes through the layers, the first one outermost, to the server."""
    send: Send = _transmit
    for layer in reversed(tuple(layers)):
        send = _through(layer.flow, send)
    return send


def _through(flow: Callable[[Call, Send], Flow], send: Send) -> Send:
    # Called once a layer and call; a closure is cheaper than `functools.partial` with a keyword.
    def through(call: Call) -> Flow:
        return flow(call, send)

    return through


def run(flow: Flow, io: IO) -> Reply:
    """Do what a flow wants, blocking, and give its reply."""
    try:
        operation = next(flow)
        while True:
            try:
                result = operation.run(io)
            except BaseException as error:
                operation = flow.throw(error)
            else:
                operation = flow.send(result)
    except StopIteration as stop:
        reply: Reply = stop.value
        return reply


async def run_async(flow: Flow, io: AsyncIO) -> Reply:
    """Do what a flow wants, awaiting, and give its reply."""
    try:
        operation = next(flow)
        while True:
            try:
                result = await operation.run_async(io)
            except BaseException as error:
                operation = flow.throw(error)
            else:
                operation = flow.send(result)
    except StopIteration as stop:
        reply: Reply = stop.value
        return reply
