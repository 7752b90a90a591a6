"""DynamoTransport: identity and hints out, telemetry back, on every call, unary or streamed, sync or async.

The body of a request is not parsed: the `nvext` object goes in right behind the opening brace. Only if the caller's
body may already have an `nvext` is it parsed and merged, and then the caller wins.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass, field
from time import perf_counter, time
from typing import Any

import httpx

from .answers import StreamReader, UnaryReader, error_text
from .planner import Planner
from .telemetry import CallRecord, Emit, emit
from .wire.fields import WireFields, merged_nvext

logger = logging.getLogger(__name__)

EXTRA_FIELDS = ("worker_id", "timing")
"""What we ask Dynamo to answer besides the completion (`nvext.extra_fields`)."""

COPY_LIMIT_BYTES = 65_536
"""Bodies up to this size are joined with our fields, because a write more costs more than the copy (about 3 µs)."""

_APIS = (
    ("/chat/completions", "chat_completions"),
    ("/completions", "completions"),
    ("/responses", "responses"),
)
_REFUSALS = (400, 422)
_MAX_ERROR_BYTES = 65_536
_OBJECT_START = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*([\"}])")
_OBJECT_END = re.compile(rb"\}[ \t\r\n]*$")
# `"nvext"` written with JSON escapes, which name the same key.
_ESCAPED_KEY = re.compile(rb'"(?:n|\\u006[eE])(?:v|\\u0076)(?:e|\\u0065)(?:x|\\u0078)(?:t|\\u0074)"', re.ASCII)


def api_of(request: httpx.Request) -> str | None:
    """Which of the APIs we know a request calls, or `None`."""
    if request.method != "POST":
        return None
    path = request.url.path.rstrip("/")
    for suffix, api in _APIS:
        if path.endswith(suffix):
            return api
    return None


def _may_have_nvext(body: bytes) -> bool:
    if b'nvext"' in body:
        return True
    return b"\\u00" in body and _ESCAPED_KEY.search(body) is not None


def spliced(body: bytes, nvext: dict[str, Any]) -> tuple[bytes, ...] | None:
    """The body with `nvext` in it, as parts to be sent one after the other; `None` to send it as it is.

    The body is left alone if it is no JSON object, or if its caller set `nvext` to something that is no object.
    """
    start = _OBJECT_START.match(body)
    if start is None or _OBJECT_END.search(body, max(0, len(body) - 64)) is None:
        return None
    if _may_have_nvext(body):
        try:
            data = json.loads(body)
        except ValueError:
            return None
        if not isinstance(data, dict):
            return None
        if "nvext" in data:
            if not isinstance(data["nvext"], dict):
                return None
            data["nvext"] = merged_nvext(nvext, data["nvext"])
            return (_dump(data),)
    fields = b'{"nvext":' + json.dumps(nvext, separators=(",", ":")).encode("ascii")
    rest = start.start(1)
    fields += b"," if body[rest : rest + 1] == b'"' else b""
    if len(body) <= COPY_LIMIT_BYTES:
        return (fields + body[rest:],)
    return (fields, memoryview(body)[rest:])  # type: ignore[return-value]


def _dump(data: Any) -> bytes:
    try:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # lone surrogates have no UTF-8, only an escape
        return json.dumps(data, separators=(",", ":")).encode("ascii")


class _Parts(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A request body in parts; can be sent again by a retry below us."""

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[bytes, ...]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part


class _Telemetry:
    """Reads one answer into its record and emits the record once, in the context the call was made in."""

    __slots__ = ("_context", "_done", "_emit", "_ended_ms", "_reader", "_started", "record")

    def __init__(self, record: CallRecord, emit_record: Emit) -> None:
        self.record = record
        self._emit = emit_record
        self._reader: UnaryReader | StreamReader | None = None
        self._done = False
        # A stream may be closed in another task or thread; NAT's steps belong to the one that called.
        self._context = copy_context()
        self._started = perf_counter()
        self._ended_ms: float | None = None

    def now_ms(self) -> float:
        return (perf_counter() - self._started) * 1000.0

    def begin(self, response: httpx.Response) -> None:
        self.record.status = response.status_code
        headers = response.headers
        if "content-encoding" in headers:
            return  # the bytes that pass are compressed
        if headers.get("content-type", "").startswith("text/event-stream"):
            self.record.streamed = True
            self._reader = StreamReader(self.record)
        else:
            self._reader = UnaryReader(self.record)

    def feed(self, chunk: bytes) -> None:
        # The consumer may sit on an open stream; a call ends with its last bytes.
        self._ended_ms = now = self.now_ms()
        if self._reader is not None:
            self._reader.feed(chunk, now)

    def failed(self, error: BaseException) -> None:
        if isinstance(error, GeneratorExit):
            # The consumer stopped reading. OpenAI's library always does so behind the last event.
            if self._reader is not None and not self._reader.complete:
                self.record.error = "closed before the answer was complete"
            return
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
        self._context.run(self._emit, self.record)


class _ReadStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Passes a response's bytes on as they come, and lets telemetry see them."""

    __slots__ = ("_stream", "_telemetry")

    def __init__(self, stream: Any, telemetry: _Telemetry) -> None:
        self._stream = stream
        self._telemetry = telemetry

    def __iter__(self) -> Iterator[bytes]:
        feed = self._telemetry.feed
        try:
            for chunk in self._stream:
                feed(chunk)
                yield chunk
        except BaseException as error:
            self._telemetry.failed(error)
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        feed = self._telemetry.feed
        try:
            async for chunk in self._stream:
                feed(chunk)
                yield chunk
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
            await self._stream.aclose()
        finally:
            self._telemetry.finish()


@dataclass(slots=True)
class _Outgoing:
    """A request of ours on its way, and the same without body hints for a server that refuses them."""

    request: httpx.Request
    telemetry: _Telemetry
    nvext_names: frozenset[str] = frozenset()
    without_nvext: Callable[[], httpx.Request] | None = None


@dataclass(slots=True)
class ServerMemory:
    """What was learned about the servers a client talks to; shared by the sync and the async side."""

    refusing: set[str] = field(default_factory=set)
    """Origins whose server refuses body fields of ours."""


class DynamoTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Wraps a sync transport, an async one, or one that is both.

    Args:
        transport: what really sends.
        planner: makes the plan of each call; `None` sends no identity and no hints, only asks for telemetry.
        answer_key: names the scripted answer of a call, on an embedded Dynamo; `None` for no script.
        memory: what is known of servers; give the same one to a client's sync and async transports.
        emit_record: where records go; the default hands them to every exporter of `telemetry`.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport,
        planner: Planner | None = None,
        *,
        answer_key: Callable[[], str | None] | None = None,
        memory: ServerMemory | None = None,
        emit_record: Emit = emit,
    ) -> None:
        self._sync = transport if isinstance(transport, httpx.BaseTransport) else None
        self._async = transport if isinstance(transport, httpx.AsyncBaseTransport) else None
        self._planner = planner
        self._answer_key = answer_key
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
            response = self._sync.handle_request(out.request)
            if out.without_nvext is not None and response.status_code in _REFUSALS:
                body = b"".join(response.iter_raw())
                response.close()
                message = _refusal_text(response, body)
                if self._names_ours(out, message):
                    response = self._sync.handle_request(out.without_nvext())
                    self._note_refusal(request, response, message)
                else:
                    response = _again(response, body)
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
            response = await self._async.handle_async_request(out.request)
            if out.without_nvext is not None and response.status_code in _REFUSALS:
                body = b"".join([chunk async for chunk in response.aiter_raw()])
                await response.aclose()
                message = _refusal_text(response, body)
                if self._names_ours(out, message):
                    response = await self._async.handle_async_request(out.without_nvext())
                    self._note_refusal(request, response, message)
                else:
                    response = _again(response, body)
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
        said = WireFields()
        if self._planner is not None:
            plan = self._planner.plan_call()
            said = self._planner.say(plan)
            record.prefix_id = plan.identity.prefix_id
            record.session_id = plan.session_id
            record.parent_session_id = plan.parent_session_id
            record.call_index = plan.call_index
            record.function_path = plan.identity.function_path
            record.hints = dict(said.agent_hints)
            record.wire = self._planner.wire_names
        nvext: dict[str, Any] = {}
        if said.agent_hints:
            nvext["agent_hints"] = dict(said.agent_hints)
        annotations = list(said.annotations)
        if self._answer_key is not None and (key := self._answer_key()) is not None:
            annotations.append(f"output_replay_id:{key}")
        if annotations:
            nvext["annotations"] = annotations
        nvext["extra_fields"] = list(EXTRA_FIELDS)

        with_headers = self._with_headers(request, said.headers)
        if _origin(request) in self._memory.refusing:
            record.hints = {}
            return _Outgoing(with_headers(None), telemetry)
        body = _plain_json_body(request)
        parts = None if body is None else spliced(body, nvext)
        if parts is None:
            record.hints = {}
            return _Outgoing(with_headers(None), telemetry)
        names = frozenset({"nvext", *nvext, *dict(said.agent_hints)})

        def without_nvext() -> httpx.Request:
            record.hints = {}
            return with_headers(None)

        return _Outgoing(with_headers(parts), telemetry, names, without_nvext)

    @staticmethod
    def _with_headers(
        request: httpx.Request, ours: tuple[tuple[bytes, bytes], ...]
    ) -> Callable[[tuple[bytes, ...] | None], httpx.Request]:
        """A maker of copies of a request that have our headers (the caller's own stay) and another body."""

        def make(parts: tuple[bytes, ...] | None) -> httpx.Request:
            raw = request.headers.raw
            taken = {name.lower() for name, _ in raw}
            headers = raw + [header for header in ours if header[0] not in taken]
            stream: httpx.SyncByteStream | httpx.AsyncByteStream = request.stream
            if parts is not None:
                length = b"%d" % sum(map(len, parts))
                headers = [(n, length if n.lower() == b"content-length" else v) for n, v in headers]
                stream = _Parts(parts)
            return httpx.Request(
                request.method, request.url, headers=headers, stream=stream, extensions=request.extensions
            )

        return make

    @staticmethod
    def _names_ours(out: _Outgoing, message: str) -> bool:
        return not out.nvext_names.isdisjoint(re.findall(r"\w+", message))

    def _note_refusal(self, request: httpx.Request, response: httpx.Response, message: str) -> None:
        """Remember a server that took the call without our body fields and not with them."""
        origin = _origin(request)
        if response.status_code in _REFUSALS or origin in self._memory.refusing:
            return
        self._memory.refusing.add(origin)
        logger.warning("%s refuses Dynamo's body hints (%s); calls go on with headers only", origin, message)

    def _watched(self, response: httpx.Response, telemetry: _Telemetry) -> httpx.Response:
        telemetry.begin(response)
        response.stream = _ReadStream(response.stream, telemetry)
        return response


def _origin(request: httpx.Request) -> str:
    url = request.url
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _plain_json_body(request: httpx.Request) -> bytes | None:
    """The body of a request, if it is in memory and neither compressed nor declared to be something else than JSON."""
    headers = request.headers
    if "content-encoding" in headers or "json" not in headers.get("content-type", "json"):
        return None
    if "content-length" not in headers:
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
