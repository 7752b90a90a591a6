"""DynamoTransport: identity and hints out, telemetry back, on every call, unary or streamed, sync or async.

The body of a request is not parsed: our members go in right behind the opening brace. Only if the caller's body may
already have one of these names is it parsed and merged, and then the caller wins.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from time import perf_counter, time
from typing import Any, cast

import anyio
import httpx

from nat_dynamo_plugin.dialects.dynamo import PARENT, SESSION
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.dialects.speaker import Speaker
from nat_dynamo_plugin.http.answers import StreamReader, UnaryReader, error_text
from nat_dynamo_plugin.http.splice import edited, spliced
from nat_dynamo_plugin.layers.workload import FollowedCall, Workload
from nat_dynamo_plugin.plan.planner import Planner
from nat_dynamo_plugin.telemetry.record import CallRecord, Emit, emit

logger = logging.getLogger(__name__)

_APIS = (
    ("/chat/completions", "chat_completions"),
    ("/completions", "completions"),
    ("/responses", "responses"),
)
_REFUSALS = (400, 422)
END_WAIT_S = 0.05
"""Longest wait for the end of a streamed answer whose last event has been read, in seconds."""
_MAX_ERROR_BYTES = 65_536


def api_of(request: httpx.Request) -> str | None:
    """Which of the APIs we know a request calls, or `None`."""
    if request.method != "POST":
        return None
    path = request.url.path.rstrip("/")
    for suffix, api in _APIS:
        if path.endswith(suffix):
            return api
    return None


class _Parts(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A request body in parts; can be sent again by a retry below us."""

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[bytes | memoryview, ...]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[bytes]:
        # httpx asks for bytes only; what sends them takes any buffer.
        return iter(cast("tuple[bytes, ...]", self.parts))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in cast("tuple[bytes, ...]", self.parts):
            yield part


class _Sent(httpx.Request):
    """A request like the caller's with other headers and body; the caller's own is left as it is.

    `httpx.Request.__init__` would check and convert again what the caller's request has passed already.
    """

    def __init__(
        self,
        callers: httpx.Request,
        headers: list[tuple[bytes, bytes]],
        stream: httpx.SyncByteStream | httpx.AsyncByteStream,
    ) -> None:
        self.method = callers.method
        self.url = callers.url
        self.headers = httpx.Headers(headers)
        self.extensions = dict(callers.extensions)
        self.stream = stream


class _Telemetry:
    """Reads one answer into its record and emits the record once, in the context the call was made in."""

    __slots__ = ("_context", "_done", "_emit", "_ended_ms", "_exhausted", "_reader", "_started", "followed", "record")

    def __init__(self, record: CallRecord, emit_record: Emit) -> None:
        self.record = record
        self._emit = emit_record
        self._reader: UnaryReader | StreamReader | None = None
        self._done = False
        # A stream may be closed in another task or thread; NAT's steps belong to the one that called.
        self._context = copy_context()
        self._started = perf_counter()
        self._ended_ms: float | None = None
        self._exhausted = False
        self.followed: FollowedCall | None = None

    def now_ms(self) -> float:
        return (perf_counter() - self._started) * 1000.0

    def begin(self, response: httpx.Response) -> None:
        record = self.record
        record.status = response.status_code
        streamed = False
        # One pass over the raw headers; each look-up by name would encode the name and compare it with all of them.
        for name, value in response.headers.raw:
            name = name.lower()
            if name == b"content-encoding":
                return  # the bytes that pass are compressed
            if name == b"content-type":
                streamed = value.startswith(b"text/event-stream")
        if streamed:
            record.streamed = True
            self._reader = StreamReader(record)
        else:
            self._reader = UnaryReader(record)

    def feed(self, chunk: bytes) -> None:
        # The consumer may sit on an open stream; a call ends with its last bytes.
        self._ended_ms = now = (perf_counter() - self._started) * 1000.0
        if self._reader is not None:
            self._reader.feed(chunk, now)

    def exhausted(self) -> None:
        self._exhausted = True

    @property
    def only_end_missing(self) -> bool:
        """Whether the answer is complete, but its stream was not read to its end."""
        return not self._exhausted and not self._done and self._reader is not None and self._reader.complete

    def failed(self, error: BaseException) -> None:
        if isinstance(error, GeneratorExit):
            return  # the consumer stopped reading; `finish` knows whether the answer was complete by then
        self._ended_ms = self.now_ms()
        if self.record.error is None:
            self.record.error = f"{type(error).__name__}: {error}"[:500]

    def finish(self) -> None:
        if self._done:
            return
        self._done = True
        ended = self.now_ms() if self._ended_ms is None else self._ended_ms
        self.record.client_total_ms = ended
        if self._reader is not None:
            self._reader.finish(ended)
            # OpenAI's library always stops behind the last event, before the stream has ended.
            if not self._exhausted and not self._reader.complete and self.record.error is None:
                self.record.error = "closed before the answer was complete"
        if self.followed is not None:
            self.followed.ended(self.record)
        self._context.run(self._emit, self.record)


class _ReadStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Passes a response's bytes on as they come, and lets telemetry see them."""

    __slots__ = ("_rest", "_stream", "_telemetry")

    def __init__(self, stream: Any, telemetry: _Telemetry) -> None:
        self._stream = stream
        self._telemetry = telemetry
        self._rest: AsyncIterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        feed = self._telemetry.feed
        try:
            for chunk in self._stream:
                feed(chunk)
                yield chunk
            self._telemetry.exhausted()
        except BaseException as error:
            self._telemetry.failed(error)
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        feed = self._telemetry.feed
        self._rest = rest = aiter(self._stream)
        try:
            async for chunk in rest:
                feed(chunk)
                yield chunk
            self._telemetry.exhausted()
        except BaseException as error:
            self._telemetry.failed(error)
            raise

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._telemetry.finish()

    async def aclose(self) -> None:
        try:
            try:
                if self._rest is not None and self._telemetry.only_end_missing:
                    await self._read_end(self._rest)
            finally:
                await self._stream.aclose()
        finally:
            self._telemetry.finish()

    async def _read_end(self, rest: AsyncIterator[bytes]) -> None:
        """Read what ends the body, so that the connection can be used again.

        OpenAI's library stops at the last event, and a connection whose answer was not read to its end is thrown away,
        after every streamed call. Bounded, as a server may keep an answer open; a sync read could not be.
        """
        with suppress(httpx.TransportError), anyio.move_on_after(END_WAIT_S):
            async for chunk in rest:
                self._telemetry.feed(chunk)
            self._telemetry.exhausted()


@dataclass(slots=True)
class _Outgoing:
    """A call on its way.

    Attributes:
        request: what is sent.
        telemetry: reads the answer.
        adds: whether anything of ours is in the body.
        headers: the caller's headers and ours, for sending the caller's own body after a refusal.
    """

    request: httpx.Request
    telemetry: _Telemetry
    adds: bool = False
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class ServerMemory:
    """What was learned about the servers a client talks to; shared by the sync and the async side."""

    refusing: set[str] = field(default_factory=set)
    """Origins whose server refuses body fields of ours."""


class DynamoTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Wraps a sync transport, an async one, or one that is both.

    Args:
        transport: what really sends.
        planner: takes the turn of each call; `None` sends no identity and no hints.
        speaker: says what needs no plan where there is no planner; names the planner's dialects where there is one.
        workload: follows the planner's calls.
        memory: what is known of servers; give the same one to a client's sync and async transports.
        emit_record: where records go; the default hands them to every exporter of `telemetry`.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport,
        planner: Planner[Said] | None = None,
        *,
        speaker: Speaker | None = None,
        workload: Workload | None = None,
        memory: ServerMemory | None = None,
        emit_record: Emit = emit,
    ) -> None:
        self._sync = transport if isinstance(transport, httpx.BaseTransport) else None
        self._async = transport if isinstance(transport, httpx.AsyncBaseTransport) else None
        self._planner = planner
        self._speaker = speaker
        self._workload = workload
        self._memory = memory or ServerMemory()
        self._emit = emit_record

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a call with its plan and read its telemetry; other requests pass untouched."""
        if self._sync is None:
            raise RuntimeError("This DynamoTransport wraps an async transport; use it with httpx.AsyncClient")
        out = self._prepare(request)
        if out is None:
            return self._sync.handle_request(request)
        try:
            if out.telemetry.followed is not None:
                out.telemetry.followed.enter()
            response = self._sync.handle_request(out.request)
            if out.adds and response.status_code in _REFUSALS:
                body = response.content if response.is_closed else b"".join(response.iter_raw())
                message = _refusal_text(response, body)
                response = self._sync.handle_request(self._bare(request, out))
                self._note_refusal(_origin(request), response, message)
        except BaseException as error:
            out.telemetry.failed(error)
            out.telemetry.finish()
            raise
        return self._watched(response, out.telemetry)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a call with its plan and read its telemetry; other requests pass untouched."""
        if self._async is None:
            raise RuntimeError("This DynamoTransport wraps a sync transport; use it with httpx.Client")
        out = self._prepare(request)
        if out is None:
            return await self._async.handle_async_request(request)
        try:
            if out.telemetry.followed is not None:
                await out.telemetry.followed.enter_async()
            response = await self._async.handle_async_request(out.request)
            if out.adds and response.status_code in _REFUSALS:
                body = response.content if response.is_closed else b"".join([c async for c in response.aiter_raw()])
                message = _refusal_text(response, body)
                response = await self._async.handle_async_request(self._bare(request, out))
                self._note_refusal(_origin(request), response, message)
        except BaseException as error:
            out.telemetry.failed(error)
            out.telemetry.finish()
            raise
        return self._watched(response, out.telemetry)

    def close(self) -> None:
        """Close the wrapped transport."""
        if self._sync is not None:
            self._sync.close()

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        if self._async is not None:
            await self._async.aclose()

    def _prepare(self, request: httpx.Request) -> _Outgoing | None:
        api = api_of(request)
        if api is None:
            return None
        record = CallRecord(api=api, started_at=time())
        telemetry = _Telemetry(record, self._emit)
        headers = request.headers.raw
        names = [name.lower() for name, _ in headers]
        said = self._say(record, telemetry, request, names, headers)
        headers += said.headers_beside(names)

        refuses = bool(self._memory.refusing) and _origin(request) in self._memory.refusing
        body = None if refuses else _plain_json_body(request, headers, names)
        if telemetry.followed is not None:
            telemetry.followed.body = body
        if body is not None and said.edit is not None:
            body = edited(body, said.edit) or body
        done = None if body is None else spliced(body, said.members, said.encoded)
        if done is None or not said.members:
            return _Outgoing(_Sent(request, headers, request.stream), telemetry)
        nvext = done.sent.get("nvext")
        hints = nvext.get("agent_hints") if isinstance(nvext, Mapping) else None
        record.hints = dict(hints) if isinstance(hints, Mapping) else {}
        parts = done.parts
        length = names.index(b"content-length")
        changed = headers.copy()
        changed[length] = (headers[length][0], b"%d" % sum(map(len, parts)))
        return _Outgoing(_Sent(request, changed, _Parts(parts)), telemetry, done.adds, headers)

    def _say(
        self,
        record: CallRecord,
        telemetry: _Telemetry,
        request: httpx.Request,
        names: list[bytes],
        headers: list[tuple[bytes, bytes]],
    ) -> Said:
        if self._planner is None:
            return Said() if self._speaker is None else self._speaker.say()
        turn = self._planner.next_turn()
        plan = turn.plan
        record.call_index = turn.index
        record.prefix_id = turn.identity.prefix_id
        record.session_id = plan.session_id
        record.parent_session_id = plan.parent_session_id
        if SESSION in names:
            sent = dict(zip(names, (value.decode("latin-1") for _, value in headers), strict=True))
            record.session_id, record.parent_session_id = sent[SESSION], sent.get(PARENT)
        record.function_path = turn.identity.function_path
        record.calls_to_come = plan.calls_to_come
        record.wire = () if self._speaker is None else self._speaker.names
        if self._workload is not None:
            telemetry.followed = self._workload.follow(plan, request.url)
        return turn.said

    @staticmethod
    def _bare(request: httpx.Request, out: _Outgoing) -> httpx.Request:
        """The call as its caller made it, with our headers only."""
        out.telemetry.record.hints = {}
        return _Sent(request, out.headers, request.stream)

    def _note_refusal(self, origin: str, response: httpx.Response, message: str) -> None:
        """Remember a server that took the call without our body fields and not with them."""
        if response.status_code in _REFUSALS or origin in self._memory.refusing:
            return
        self._memory.refusing.add(origin)
        logger.warning("%s refuses Dynamo's body hints (%s); calls go on with headers only", origin, message)

    def _watched(self, response: httpx.Response, telemetry: _Telemetry) -> httpx.Response:
        telemetry.begin(response)
        if response.is_closed:  # a transport that answers from memory
            telemetry.feed(response.content)
            telemetry.exhausted()
            telemetry.finish()
            return response
        response.stream = _ReadStream(response.stream, telemetry)
        return response


def _origin(request: httpx.Request) -> str:
    url = request.url
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _plain_json_body(request: httpx.Request, headers: list[tuple[bytes, bytes]], names: list[bytes]) -> bytes | None:
    """The body, if it is in memory with its length declared, and neither compressed nor said to be no JSON."""
    if b"content-encoding" in names or b"content-length" not in names:
        return None
    if b"content-type" in names and b"json" not in headers[names.index(b"content-type")][1].lower():
        return None
    try:
        return request.content
    except httpx.RequestNotRead:
        return None


def _refusal_text(response: httpx.Response, body: bytes) -> str:
    return error_text(_again(response, body).read()[:_MAX_ERROR_BYTES])


def _again(response: httpx.Response, body: bytes) -> httpx.Response:
    """A response whose raw body was read already, to be read again."""
    return httpx.Response(
        response.status_code,
        headers=response.headers,
        stream=httpx.ByteStream(body),
        extensions=response.extensions,
    )
