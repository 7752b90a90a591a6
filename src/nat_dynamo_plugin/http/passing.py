"""An answer's bytes on their way to the caller."""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import cast

import anyio

from nat_dynamo_plugin.http.call import Call, Reader, Reply
from nat_dynamo_plugin.http.io import pieces, pieces_async
from nat_dynamo_plugin.http.lost import in_collector, keep, let_go, release
from nat_dynamo_plugin.http.messages import MESSAGES
from nat_dynamo_plugin.http.sse import MAX_EVENT_BYTES
from nat_dynamo_plugin.http.words import about

END_WAIT_S = 0.05
"""Longest wait for the end of a streamed answer whose last event has been read, in seconds."""


_utf8 = codecs.getincrementaldecoder("utf-8")
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
"""What ends a server-sent event."""


class Passing:
    """Passes an answer on; the call sees it, and learns of the end whatever happens.

    A stream of events that is no whole answer ends in an event of OpenAI's error shape, so that every framework raises
    its own exception with the server's words instead of taking half an answer for one. What tells that, an event
    without an end or a `[DONE]` too early, does not reach the caller. Where a connection broke, the HTTP library's
    exception follows.

    Args:
        call: whose answer it is.
        reply: the answer, or the rest of it.
        known: gives a failure of ours as the HTTP library's exception, and any other as it is.
        errors: what the HTTP library raises when a connection fails.
        loop: where an async answer is read; `None` for one that is read blocking.
    """

    def __init__(
        self,
        call: Call,
        reply: Reply,
        known: Callable[[BaseException], BaseException],
        errors: type[Exception],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self._call = call
        self._stream = reply.native.stream
        self._head = reply.head
        self._rest = reply.rest
        self._known = known
        self._errors = errors
        self._loop = loop
        self._closed = False
        self._is_events = call.record.streamed and call.reader is not None
        self._held = b""
        self._check = _utf8().decode
        if loop is None:
            if self._rest is None:
                self._rest = pieces(self._stream, call)
            keep(self._rest)

    def __iter__(self) -> Iterator[bytes]:
        try:
            feed, record, reader = self._call.feed, self._call.record, cast(Reader, self._call.reader)
            plain = not self._is_events  # else there is a reader
            for chunk in self._head:  # which the call has seen
                if (passed := self._looked_at(chunk)) is None:
                    break
                yield passed
            else:
                for chunk in self._rest:
                    feed(chunk)
                    if plain or (
                        chunk[-2:] == b"\n\n"
                        and chunk.isascii()
                        and not (self._held or reader.complete or record.error)
                    ):
                        yield chunk  # as nearly all are
                    elif (passed := self._looked_at(chunk)) is None:
                        break
                    else:
                        yield passed
                else:
                    self._call.exhausted()
            yield from self._end()
        except GeneratorExit:
            raise  # the consumer stopped; closing ends the call
        except BaseException as error:
            known = self._known(error)
            self._call.fail(known)
            if self._is_events and isinstance(known, self._errors):
                yield error_event(self._call)
            self._call.finish()
            if known is not error:
                raise known from error
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            feed, record, reader = self._call.feed, self._call.record, cast(Reader, self._call.reader)
            plain = not self._is_events  # else there is a reader
            if self._rest is None:
                self._rest = pieces_async(self._stream, self._call)
            for chunk in self._head:  # which the call has seen
                if (passed := self._looked_at(chunk)) is None:
                    break
                yield passed
            else:
                async for chunk in self._rest:
                    feed(chunk)
                    if plain or (
                        chunk[-2:] == b"\n\n"
                        and chunk.isascii()
                        and not (self._held or reader.complete or record.error)
                    ):
                        yield chunk  # as nearly all are
                    elif (passed := self._looked_at(chunk)) is None:
                        break
                    else:
                        yield passed
                else:
                    self._call.exhausted()
            for passed in self._end():
                yield passed
        except GeneratorExit:
            raise  # the consumer stopped; closing ends the call
        except BaseException as error:
            known = self._known(error)
            self._call.fail(known)
            if self._is_events and isinstance(known, self._errors):
                yield error_event(self._call)
            self._call.finish()
            if known is not error:
                raise known from error
            raise

    def _looked_at(self, chunk: bytes) -> bytes | None:
        """What of a chunk is passed on; `None` if it shows that this is no whole answer."""
        if not self._is_events:
            return chunk
        call = self._call
        if (call.record.error is not None or call.is_complete) and not call.is_whole():
            return None
        # What follows an event that is not at its end would be part of it; so only whole ones are passed on.
        text = self._held + chunk
        end = max(text.rfind(mark) + len(mark) if mark in text else 0 for mark in _ENDS)
        if len(text) - end > MAX_EVENT_BYTES:
            end = len(text)
        self._held = text[end:]
        try:
            self._check(text[:end])
        except UnicodeDecodeError as error:
            # Clients read an event as UTF-8, and what they raise for other bytes is nobody's exception.
            call.record.error, call.record.error_type = f"the stream is no UTF-8: {error.reason}", "unreadable"
            return None
        return text[:end]

    def _end(self) -> Iterator[bytes]:
        if self._is_events and not self._call.is_whole():
            yield error_event(self._call)
        elif self._held:
            yield self._held.decode("utf-8", "replace").encode()  # behind the last event

    def close(self) -> None:
        """Close the answer and end the call."""
        self._closed = True
        if in_collector():  # as OpenAI's library has it for a stream that was dropped
            let_go(self._call, self._stream, self._rest, self._loop)
            return
        try:
            # See `_read_end`. Of the sync engines urllib3's alone can wait for so short a time.
            if self._call.only_end_missing and hasattr(self._stream, "read_end") and self._stream.read_end(END_WAIT_S):
                self._call.exhausted()
            self._stream.close()
        finally:
            release(self._rest)
            self._call.finish()

    async def aclose(self) -> None:
        """Close the answer and end the call."""
        self._closed = True
        try:
            try:
                if self._rest is not None and self._call.only_end_missing:
                    await self._read_end(self._rest)
            finally:
                await self._stream.aclose()
        finally:
            self._call.finish()

    async def _read_end(self, rest: AsyncIterator[bytes]) -> None:
        """Read what ends the body, so that the connection can be used again.

        OpenAI's library stops at the last event, and a connection whose answer was not read to its end is thrown away,
        after every streamed call. Bounded, as a server may keep an answer open. Another task may be reading still
        (`RuntimeError`): then the answer is closed as it is.
        """
        with suppress(self._errors, RuntimeError), anyio.move_on_after(END_WAIT_S):
            async for chunk in rest:
                self._call.feed(chunk)
            self._call.exhausted()

    def __del__(self) -> None:
        # A caller that drops an answer without closing it must not keep a connection, nor a place at the gate.
        if not self._closed:
            let_go(self._call, self._stream, self._rest, self._loop)


def error_event(call: Call) -> bytes:
    """What is wrong with an answer, as a server-sent event of it; an empty line before it ends whatever was begun."""
    record = call.record
    error = {"message": f"{record.error} {about(call)}", "type": record.failure, "code": record.status}
    if record.api == MESSAGES:
        return b"\n\nevent: error\ndata: " + json.dumps({"type": "error", "error": error}).encode() + b"\n\n"
    return b"\n\ndata: " + json.dumps({"error": error}).encode() + b"\n\n"
