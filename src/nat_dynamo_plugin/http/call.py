"""A call on its way to the server, and the server's reply, as layers see them. No HTTP library in here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from math import inf
from time import monotonic, perf_counter, time
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from nat_dynamo_plugin.http.headers import Headers, RawHeaders, raw_header
from nat_dynamo_plugin.secrets import clean
from nat_dynamo_plugin.telemetry.kinds import Kind, kind_of
from nat_dynamo_plugin.telemetry.record import CallRecord

if TYPE_CHECKING:
    from nat_dynamo_plugin.dialects.said import Said
    from nat_dynamo_plugin.plan.planner import Turn

logger = logging.getLogger(__name__)

_APIS = (
    (b"/chat/completions", "chat_completions"),
    (b"/completions", "completions"),
    (b"/responses", "responses"),
    (b"/v1/messages", "messages"),  # Anthropic's; OpenAI has other paths that end in /messages
)
_MAX_ERROR_CHARS = 500
LEFT = "closed before the answer was complete"
Ended = Callable[[CallRecord], None]


def api_of(method: str, raw_path: bytes) -> str | None:
    """Which of the APIs we know a request calls, or `None`.

    Args:
        method: the HTTP method, upper case.
        raw_path: path and query as they go over the wire.
    """
    if method == "POST":
        path = raw_path.partition(b"?")[0].rstrip(b"/")
        for suffix, api in _APIS:
            if path.endswith(suffix):
                return api
    return None


class Body:
    """A request's body.

    Attributes:
        parts: the body with our fields in it, in pieces; `None` if it has none.
        is_edited: whether a layer has changed `raw`.
    """

    __slots__ = ("_raw", "is_edited", "parts")

    def __init__(self, raw: bytes | None) -> None:
        self._raw = raw
        self.is_edited = False
        self.parts: tuple[bytes | memoryview, ...] | None = None

    @property
    def raw(self) -> bytes | None:
        """The caller's bytes; `None` unless they are in memory, plain JSON, and of a declared length.

        A layer above the question's may set other bytes, of a JSON object too.
        """
        return self._raw

    @raw.setter
    def raw(self, raw: bytes) -> None:
        if self._raw is None:
            raise ValueError("this body can not be changed: it is not in memory, or no plain JSON")
        self._raw = raw
        self.is_edited = True

    @property
    def to_send(self) -> tuple[bytes | memoryview, ...] | None:
        """What is sent, in pieces; `None` for what the caller gave."""
        if self.parts is not None or not self.is_edited:
            return self.parts
        return None if self._raw is None else (self._raw,)


class Reader(Protocol):
    """Reads an answer into the record while it passes."""

    complete: bool
    """Whether the last event has passed."""
    problem: str | None
    """After `finish`: why this is no whole answer; the record's error too, unless it has one."""

    def feed(self, chunk: bytes, now_ms: float) -> None:
        """Take the next bytes."""

    def finish(self, now_ms: float) -> None:
        """Take the end."""


class Call:
    """One call of an LLM, from when its client makes it to the end of its answer.

    Attributes:
        method: HTTP method.
        native: the HTTP library's own request. For the shell alone.
        api: `chat_completions`, `completions`, `responses` or `messages`.
        headers: as they will be sent.
        body: as it will be sent.
        record: what becomes known of the call.
        turn: who asks and what was planned; `None` before the question layer, and with hints off.
        reader: reads the answer into the record; set once there is one.
        deadline: when the call has to be over, in seconds of `time.monotonic`; `None` for never. See `layers.deadline`.
        most_bytes: an answer of more is broken off.
    """

    __slots__ = (
        *("_context", "_ended_ms", "_ends", "_exhausted", "_open", "_origin", "_settled", "_size", "_started", "_url"),
        *("api", "body", "deadline", "headers", "method", "most_bytes", "native", "reader", "record", "turn"),
    )

    def __init__(self, native: Any, api: str, headers: Headers, body: bytes | None) -> None:
        """A call as its client made it.

        Args:
            native: the HTTP library's request.
            api: see above.
            headers: the request's.
            body: see `Body.raw`.
        """
        self.native = native
        self.api = api
        self.method: str = native.method
        self._url: str | None = None
        self.headers = headers
        self.body = Body(body)
        self.record = CallRecord(api=api, started_at=time(), attempts=0)
        self.turn: Turn[Said] | None = None
        self.reader: Reader | None = None
        self.deadline: float | None = None
        self.most_bytes: float = inf
        self._size = 0
        self._ends: list[Ended] = []
        self._open = [True]
        self._exhausted = False
        self._settled = False
        self._ended_ms: float | None = None
        self._origin: str | None = None
        self._context: Context | None = None
        self._started = perf_counter()

    @property
    def url(self) -> str:
        """Where the call goes; a layer may send it elsewhere."""
        return str(self.native.url) if self._url is None else self._url

    @url.setter
    def url(self, url: str) -> None:
        self._url = url
        self._origin = None

    @property
    def is_sent_elsewhere(self) -> bool:
        """Whether a layer has changed `url`."""
        return self._url is not None

    @property
    def origin(self) -> str:
        """Scheme, host and port of `url`, without a user's name or password."""
        if self._origin is None:
            self._origin = origin_of(self.url)
        return self._origin

    @property
    def now_ms(self) -> float:
        """Milliseconds since the client made the call."""
        return (perf_counter() - self._started) * 1000.0

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, below 0 when it is over; infinite where there is none."""
        return inf if self.deadline is None else self.deadline - monotonic()

    def on_end(self, callback: Ended) -> None:
        """Have `callback` called once when the call is over, whatever happened, with its finished record.

        Last registered, first called; in the context that the call was made in. It must not block; what it raises is
        logged.
        """
        self._ends.append(callback)

    def read_by(self, reader: Reader) -> None:
        """Have what comes read by this reader; what came of an attempt before is forgotten."""
        self.reader = reader
        self._settled = False
        self._size = 0

    # What follows is told by the shell that carries the call.

    def goes_on(self) -> None:
        """The answer is handed to the caller unread, who may close it in another task or thread."""
        self._context = copy_context()  # NAT's steps belong to the one that called

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the answer have come."""
        # The consumer may sit on an open stream; a call ends with its last bytes.
        self._ended_ms = now = (perf_counter() - self._started) * 1000.0
        self._size += len(chunk)
        if self._size > self.most_bytes and self.record.error is None:
            self.record.error = f"the answer is longer than max_answer_bytes={self.most_bytes}"
            self.record.error_type = Kind.TOO_LONG.value
        if self.reader is not None:
            self.reader.feed(chunk, now)

    def exhausted(self) -> None:
        """The answer was read to its end."""
        self._exhausted = True

    @property
    def is_complete(self) -> bool:
        """Whether the answer's last event has passed."""
        return self.reader is not None and self.reader.complete

    def is_whole(self) -> bool:
        """Whether what has come is a whole answer; asked when no more of it is expected."""
        self._settle()
        return self.record.error is None

    def _settle(self) -> None:
        if self.reader is not None and not self._settled:
            self._settled = True
            self.reader.finish(self.now_ms if self._ended_ms is None else self._ended_ms)

    @property
    def only_end_missing(self) -> bool:
        """Whether the answer is complete, but its stream was not read to its end."""
        return not self._exhausted and bool(self._open) and self.reader is not None and self.reader.complete

    def fail(self, error: BaseException) -> None:
        """The call was broken off. Secrets are taken out of the exception, which the caller gets."""
        clean(error)
        self._ended_ms = self.now_ms
        if self.record.error is None:
            self.record.error = f"{type(error).__name__}: {error}"[:_MAX_ERROR_CHARS]
            self.record.error_type = type(error).__name__

    def finish(self) -> None:
        """The call is over; only the first time counts."""
        try:
            self._open.pop()  # atomic, for two threads may close one answer
        except IndexError:
            return
        record, reader = self.record, self.reader
        ended = self.now_ms if self._ended_ms is None else self._ended_ms
        record.client_total_ms = ended
        if reader is not None:
            # OpenAI's library always stops behind the last event, before the stream has ended.
            if record.error is None and not self._exhausted and not reader.complete:
                record.error, record.error_type = LEFT, "left"
            self._settle()
        if record.failed:
            record.kind = kind_of(record)
        if self._context is None:
            self._tell(record)
        else:
            self._context.run(self._tell, record)

    def _tell(self, record: CallRecord) -> None:
        ends, self._ends = self._ends, []
        for callback in reversed(ends):
            try:
                callback(record)
            except Exception:
                logger.warning("%r failed at the end of a call", callback, exc_info=True)


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, without a user's name or password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class Reply:
    """What a server answered, or a layer in its place.

    Attributes:
        status: HTTP status.
        content: the whole body as it came over the wire (maybe compressed), if it has been read or made; else `None`.
        native: the HTTP library's own response; `None` for one that a layer made. For the shell alone.
        head: the first pieces of a body that was read in part.
        rest: where the other pieces come from then.
        call: whose it is, for its deadline, which reading must keep; `None` for one that a layer made.
    """

    __slots__ = ("_headers", "call", "content", "head", "native", "rest", "status")

    def __init__(
        self, status: int, headers: RawHeaders | None = None, content: bytes | None = None, *, native: Any = None
    ) -> None:
        self.status = status
        self.content = content
        self.native = native
        self.head: list[bytes] = []
        self.rest: Any = None
        self.call: Call | None = None
        self._headers = None if headers is None else Headers(headers)

    @classmethod
    def made(cls, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """A reply of a layer's own, `application/json` unless the headers say otherwise."""
        given = {"content-type": "application/json", **(headers or {}), "content-length": str(len(content))}
        return cls(status, [(raw_header(name), raw_header(value)) for name, value in given.items()], content)

    @property
    def headers(self) -> Headers:
        """The headers; what a layer changes in them reaches the caller."""
        if self._headers is None:
            self._headers = Headers(list(self.native.headers.raw))
        return self._headers

    def with_content(self, content: bytes) -> Reply:
        """A reply of this status with another body, of JSON, and the headers that do not describe the body."""
        described = (b"content-encoding", b"content-length", b"content-type", b"transfer-encoding")
        kept = [(name, value) for name, value in self.raw_headers if name.lower() not in described]
        length = b"%d" % len(content)
        return Reply(self.status, [*kept, (b"content-type", b"application/json"), (b"content-length", length)], content)

    @property
    def raw_headers(self) -> RawHeaders:
        """The headers to look through once, in the order in which they came."""
        if self._headers is None:
            raw: RawHeaders = self.native.headers.raw
            return raw
        return self._headers.raw

    @property
    def has_own_headers(self) -> bool:
        """Whether a layer has made or may have changed the headers."""
        return self._headers is not None

    @property
    def is_streamed(self) -> bool:
        """Whether it is a stream of server-sent events."""
        for name, value in self.raw_headers:
            if name.lower() == b"content-type":
                return value.startswith(b"text/event-stream")
        return False
