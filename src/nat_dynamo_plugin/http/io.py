"""Does what flows yield, with a transport of httpx or httpx2, blocking or awaiting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio

from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.decoding import decode
from nat_dynamo_plugin.http.flow import Failure, too_late

RequestOf = Callable[[Call], Any]
"""Makes the library's request for a call as its layers have left it."""

_KINDS = {
    "ConnectError": "connect",
    "ConnectTimeout": "connect timeout",
    "PoolTimeout": "pool timeout",
    "WriteError": "write",
    "WriteTimeout": "write timeout",
    "ReadTimeout": "read timeout",
    "RemoteProtocolError": "protocol",
    "LocalProtocolError": "local",
    "UnsupportedProtocol": "local",
    "ProxyError": "connect",
    "CloseError": "read",
    "ReadError": "read",
}


def failure_of(error: BaseException) -> Failure:
    """An HTTP library's exception as what it means."""
    for cls in type(error).__mro__:
        if cls.__name__ in _KINDS:
            return Failure(_KINDS[cls.__name__], error)
    return Failure("read", error)


class SyncIO:
    """Sends with a blocking transport; `errors` is what the library raises when a connection fails."""

    __slots__ = ("_errors", "_request_of", "_transport")

    def __init__(self, transport: Any, request_of: RequestOf, errors: type[Exception]) -> None:
        self._transport = transport
        self._request_of = request_of
        self._errors = errors

    def transmit(self, call: Call) -> Reply:
        """Send the call as it stands."""
        call.record.attempts += 1
        try:
            native = self._transport.handle_request(self._request_of(call))
        except self._errors as error:
            raise _failed(call, error) from error
        return _reply(native, call, self._errors)

    def read(self, reply: Reply, most: int) -> bytes:
        """Read the body, or the beginning of one that is longer than `most` bytes."""
        stream, head = reply.native.stream, reply.head
        size = 0
        if reply.rest is None:
            reply.rest = pieces(stream, reply.call)
        else:
            size = sum(map(len, head))
        try:
            for chunk in reply.rest:
                head.append(chunk)
                size += len(chunk)
                if size > most:
                    return b"".join(head)
        except self._errors as error:
            stream.close()
            raise failure_of(error) from error
        except BaseException:
            stream.close()
            raise
        stream.close()
        return _whole(reply)

    def close(self, reply: Reply) -> None:
        """Leave a reply."""
        if reply.content is None:
            reply.native.stream.close()


class AsyncIO:
    """Sends with an async transport; see `SyncIO`."""

    __slots__ = ("_errors", "_request_of", "_transport")

    def __init__(self, transport: Any, request_of: RequestOf, errors: type[Exception]) -> None:
        self._transport = transport
        self._request_of = request_of
        self._errors = errors

    async def transmit(self, call: Call) -> Reply:
        """Send the call as it stands."""
        call.record.attempts += 1
        try:
            native = await self._transport.handle_async_request(self._request_of(call))
        except self._errors as error:
            raise _failed(call, error) from error
        return _reply(native, call, self._errors)

    async def read(self, reply: Reply, most: int) -> bytes:
        """Read the body, or the beginning of one that is longer than `most` bytes."""
        stream, head = reply.native.stream, reply.head
        size = 0
        if reply.rest is None:
            reply.rest = pieces_async(stream, reply.call)
        else:
            size = sum(map(len, head))
        try:
            async for chunk in reply.rest:
                head.append(chunk)
                size += len(chunk)
                if size > most:
                    return b"".join(head)
        except self._errors as error:
            await stream.aclose()
            raise failure_of(error) from error
        except BaseException:
            await stream.aclose()
            raise
        await stream.aclose()
        return _whole(reply)

    async def close(self, reply: Reply) -> None:
        """Leave a reply."""
        if reply.content is None:
            await reply.native.stream.aclose()


def _failed(call: Call, error: Exception) -> Failure:
    if call.left_s <= 0:
        return too_late(call)
    return failure_of(error)


def _reply(native: Any, call: Call, broken: Callable[[str], Exception]) -> Reply:
    # A transport that answers from memory has the body already; as it came, for `content` would be decompressed.
    content = b"".join(native.stream) if native.is_closed else None
    if content is None:
        decode(native, broken)
    reply = Reply(native.status_code, content=content, native=native)
    reply.call = call
    return reply


def pieces(stream: Any, call: Call | None) -> Iterator[bytes]:
    """A stream's pieces, blocking; until the call's deadline if it has one."""
    return iter(stream) if call is None or call.deadline is None else _in_time(stream, call)


def pieces_async(stream: Any, call: Call | None) -> AsyncIterator[bytes]:
    """A stream's pieces, awaiting; until the call's deadline if it has one."""
    return aiter(stream) if call is None or call.deadline is None else _in_time_async(stream, call)


def _in_time(stream: Any, call: Call) -> Iterator[bytes]:
    """Pieces until the deadline.

    Raises:
        Failure: the deadline is over. An engine that lets its wait for the next piece be cut (`hurry`) ends in time,
            another one at its read timeout.
    """
    hurry = getattr(stream, "hurry", None)
    rest = iter(stream)
    while True:
        left = call.left_s
        if left <= 0:
            raise too_late(call)
        if hurry is not None:
            hurry(left)
        try:
            piece = next(rest, None)
        except Exception as error:
            if call.left_s <= 0:
                raise too_late(call) from error
            raise
        if piece is None:
            return
        yield piece


async def _in_time_async(stream: Any, call: Call) -> AsyncIterator[bytes]:
    """Pieces until the deadline.

    Raises:
        Failure: the deadline is over.
    """
    rest = aiter(stream)
    while True:
        left = call.left_s
        if left <= 0:  # nothing is cancelled that does not wait
            raise too_late(call)
        with anyio.move_on_after(left) as scope:
            try:
                piece = await anext(rest)
            except StopAsyncIteration:
                return
        if scope.cancelled_caught:
            raise too_late(call)
        yield piece


def _whole(reply: Reply) -> bytes:
    head = reply.head
    reply.content = content = head[0] if len(head) == 1 else b"".join(head)
    reply.head = []
    return content
