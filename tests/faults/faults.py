"""The faults: what a server may do to a call, and what a client must make of it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import StrEnum
from time import time
from typing import Any

from .server import Peer, Play, Request

WORDS = "The boiler is cold"
"""What the server says of an error; the caller must get to read it."""
KEY = "sk-canary-4b1d-9c7e"
"""The API key of every call; nobody but the server must get to read it."""
PIECES = ("The valve", " is", " shut.")
TEXT = "".join(PIECES)
"""What a good answer says."""

RETRIES = 2
"""`max_retries` of every call."""
READ_TIMEOUT_S = 0.5
"""`request_timeout` where a fault makes the client wait for ever; the next question has to be answered within it."""
CALL_TIMEOUT_S = 0.8
"""`call_timeout` where bytes go on coming for ever."""


# What a client must do.


class Outcome(StrEnum):
    """What comes of a call."""

    ANSWER = "answers"
    RECOVERY = "asks again and answers"
    ERROR = "raises"
    EITHER = "answers in full or raises"


@dataclass(frozen=True)
class Expect:
    """What a correct client does with a fault.

    Attributes:
        outcome: whether it answers.
        raises: the OpenAI library's exception, or a base of it.
        status: the HTTP status that exception and record must name, if the server gave one.
        words: whether the exception and the record must have the server's words.
    """

    outcome: Outcome
    raises: str = "APIError"
    status: int | None = None
    words: bool = False

    def __str__(self) -> str:
        if self.outcome is not Outcome.ERROR:
            return self.outcome
        return f"raises `{self.raises}`" + " with the server's words" * self.words


ANSWERS = Expect(Outcome.ANSWER)
RECOVERS = Expect(Outcome.RECOVERY)
EITHER = Expect(Outcome.EITHER)
FAILS = Expect(Outcome.ERROR)
FAILS_WITH_WORDS = Expect(Outcome.ERROR, words=True)
UNREACHABLE = Expect(Outcome.ERROR, "APIConnectionError")
TIMES_OUT = Expect(Outcome.ERROR, "APITimeoutError")

_EXCEPTIONS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}


def fails(status: int, *, words: bool = True) -> Expect:
    """The exception for an HTTP status."""
    name = _EXCEPTIONS.get(status, "APIStatusError" if status < 500 else "InternalServerError")
    return Expect(Outcome.ERROR, name, status, words)


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: says what the server does.
        group: the table it stands in.
        play: what the server does with a request.
        unary: what a client must make of it when it asks for a whole answer; `None` if the fault needs a stream.
        streamed: the same for a streamed answer.
        times: how many requests meet the fault before the server answers well; `None` for all.
        at_accept: whether it is played before a request is read.
        listens: whether there is a server at all.
        config: fields of the LLM's config that are other than usual.
        most: most requests that a client may make of it.
        waits: least and most seconds that a client must wait before it asks again.
        finish: the finish reason of its answer; `None` where the record need not have one.
    """

    name: str
    group: str
    play: Play
    unary: Expect | None
    streamed: Expect | None
    times: int | None = None
    at_accept: bool = False
    listens: bool = True
    config: dict[str, Any] = field(default_factory=dict)
    most: int = RETRIES + 1
    waits: tuple[float, float] | None = None
    finish: str | None = "stop"


FAULTS: dict[str, Fault] = {}


def fault(name: str, group: str, play: Play, unary: Expect | None, streamed: Expect | None, **more: Any) -> None:
    """List a fault. One that a client recovers from is played once, unless said otherwise."""
    if name in FAULTS:
        raise ValueError(f"There are two faults {name!r}")
    more.setdefault("times", 1 if RECOVERS in (unary, streamed) else None)
    FAULTS[name] = Fault(name, group, play, unary, streamed, **more)


# What a good answer is made of.

JSON = "application/json"
SSE = "text/event-stream"
USAGE = {"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16}
_BASE = {"id": "chatcmpl-1", "created": 1700000000, "model": "boiler"}


def completion(finish: str | None = "stop", **more: Any) -> bytes:
    """The body of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": finish}
    return json.dumps({**_BASE, "object": "chat.completion", "choices": [choice], "usage": USAGE, **more}).encode()


def event(data: Any) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """One event of a chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({**_BASE, "object": "chat.completion.chunk", "choices": [choice], **more})


def tool_chunk(arguments: str, **more: Any) -> bytes:
    """One event of a tool call."""
    return chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments}, **more}]})


ROLE = chunk({"role": "assistant", "content": ""})
TOKENS = tuple(chunk({"content": piece}) for piece in PIECES)
HALF = (ROLE, *TOKENS[:2])
END = chunk({}, "stop")
LAST_USAGE = event({**_BASE, "object": "chat.completion.chunk", "choices": [], "usage": USAGE})
DONE = b"data: [DONE]\n\n"
EVENTS = (ROLE, *TOKENS, END, LAST_USAGE, DONE)
STREAM = b"".join(EVENTS)

Header = tuple[str, str]


def head(status: int = 200, *headers: Header, kind: str = JSON, length: int | None = None) -> bytes:
    """Status line and headers; without a length the body is chunked."""
    lines = [f"HTTP/1.1 {status} Some words"]
    framing = ("transfer-encoding", "chunked") if length is None else ("content-length", str(length))
    lines += [f"{name}: {value}" for name, value in (("content-type", kind), framing, *headers)]
    return "\r\n".join((*lines, "\r\n")).encode("latin-1")


def in_chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def whole(request: Request) -> tuple[bytes, bytes]:
    """Head and body of the good answer that a request asks for."""
    body, kind = (STREAM, SSE) if request.streamed else (completion(), JSON)
    return head(kind=kind, length=len(body)), body


def kind_of(request: Request) -> str:
    """The content type that a request asks for."""
    return SSE if request.streamed else JSON


def half(request: Request) -> bytes:
    """The first part of a good body; of a stream, more than a token."""
    return b"".join(HALF) if request.streamed else completion()[:60]


def good(peer: Peer, request: Request) -> None:
    """Answer well."""
    peer.send(b"".join(whole(request)))


# How faults are made.

Then = Callable[[Peer], None]


def go_on(peer: Peer) -> None:
    """Leave the connection open for the next request."""


close, reset, hang = Peer.close, Peer.reset, Peer.hang


def reply(status: int, body: bytes, *headers: Header, kind: str = JSON) -> Play:
    """An answer that is sound as HTTP."""
    data = head(status, *headers, kind=kind, length=len(body)) + body
    return lambda peer, _request: peer.send(data)


def raw(data: bytes, then: Then) -> Play:
    """These bytes, whatever the request is."""

    def play(peer: Peer, _request: Request) -> None:
        peer.send(data)
        then(peer)

    return play


def broken_good(make: Callable[[Request], bytes], then: Then) -> Play:
    """Bytes that depend on the request."""

    def play(peer: Peer, request: Request) -> None:
        peer.send(make(request))
        then(peer)

    return play


def ended(peer: Peer) -> None:
    """End a chunked body in the orderly way."""
    peer.send(LAST_CHUNK)


def stream(*events: bytes, then: Then = ended) -> Play:
    """A stream of events, each in a chunk and a packet of its own."""

    def play(peer: Peer, _request: Request) -> None:
        peer.send(head(kind=SSE))
        for data in events:
            peer.send(in_chunk(data))
        then(peer)

    return play


def said(**more: Any) -> bytes:
    """An error in OpenAI's shape."""
    return json.dumps(
        {"error": {"message": WORDS, "type": "boiler_error", "param": None, "code": None, **more}}
    ).encode()


def flat(code: int) -> bytes:
    """An error in Dynamo's shape."""
    return json.dumps({"message": WORDS, "type": "Boiler", "code": code}).encode()


def unreachable(name: str, play: Play, **more: Any) -> None:
    """A fault of the connection before an answer begins: harmless once, an error if it stays."""
    fault(name, "Connection", play, RECOVERS, RECOVERS, **more)
    fault(f"{name}, always", "Connection", play, UNREACHABLE, UNREACHABLE, times=None, **more)


def overloaded(status: int, body: bytes, *headers: Header, note: str = "", kind: str = JSON, **more: Any) -> None:
    """A status that passes: asked again it is gone."""
    fault(f"{status}{note}", "Status", reply(status, body, *headers, kind=kind), RECOVERS, RECOVERS, **more)


def refused(status: int, body: bytes, *headers: Header, note: str = "", words: bool = True, **more: Any) -> None:
    """A status that stays."""
    expect = fails(status, words=words)
    kind = more.pop("kind", JSON)
    fault(f"{status}{note}", "Status", reply(status, body, *headers, kind=kind), expect, expect, **more)


WAITING = {"request_timeout": READ_TIMEOUT_S}
ENDLESS = {"call_timeout": CALL_TIMEOUT_S}


# The connection.

fault("nobody listens", "Connection", good, UNREACHABLE, UNREACHABLE, listens=False)
unreachable("closed when opened", lambda peer, _: peer.close(), at_accept=True)
unreachable("reset when opened", lambda peer, _: peer.reset(), at_accept=True)
unreachable("closed before the answer", lambda peer, _: peer.close())
unreachable("reset before the answer", lambda peer, _: peer.reset())
unreachable("reset within the status line", raw(b"HTTP/1.1 2", reset))
unreachable("closed within the headers", raw(head()[:40], close))
unreachable("reset within the headers", raw(head()[:40], reset))
fault("silence", "Connection", lambda peer, _: peer.hang(), TIMES_OUT, TIMES_OUT, config=WAITING)
fault("silence within the headers", "Connection", raw(head()[:40], hang), TIMES_OUT, TIMES_OUT, config=WAITING)
fault("silence after the headers", "Connection",
      broken_good(lambda r: whole(r)[0], hang), TIMES_OUT, TIMES_OUT, config=WAITING)  # fmt: skip
fault("silence within the body", "Connection",
      broken_good(lambda r: whole(r)[0] + half(r), hang), TIMES_OUT, FAILS, config=WAITING)  # fmt: skip
fault("closed after the headers", "Connection", broken_good(lambda r: whole(r)[0], close), RECOVERS, RECOVERS)
fault("reset after the headers", "Connection", broken_good(lambda r: whole(r)[0], reset), RECOVERS, RECOVERS)
fault("closed within the body", "Connection", broken_good(lambda r: whole(r)[0] + half(r), close), RECOVERS, FAILS)
fault("reset within the body", "Connection", broken_good(lambda r: whole(r)[0] + half(r), reset), RECOVERS, FAILS)
fault("reset within the body, always", "Connection",
      broken_good(lambda r: whole(r)[0] + half(r), reset), FAILS, FAILS)  # fmt: skip
fault("chunked body cut", "Connection",
      broken_good(lambda r: head(kind=kind_of(r)) + in_chunk(half(r)), close), RECOVERS, FAILS)  # fmt: skip
fault("chunked body cut within a chunk", "Connection",
      broken_good(lambda r: head(kind=kind_of(r)) + b"fff\r\n" + half(r), close), RECOVERS, FAILS)  # fmt: skip
# An engine that reads all that has come before it gives anything on may ask again.
fault("garbage for a chunk's size", "Connection",
      broken_good(lambda r: head(kind=kind_of(r)) + in_chunk(half(r)) + b"boiler\r\n", close),
      RECOVERS, EITHER)  # fmt: skip
fault("content-length too long", "Connection",
      broken_good(lambda r: head(kind=kind_of(r), length=9999) + whole(r)[1], close),
      RECOVERS, EITHER)  # fmt: skip
fault("content-length too short", "Connection",
      broken_good(lambda r: head(kind=kind_of(r), length=len(half(r))) + whole(r)[1], close),
      FAILS, FAILS)  # fmt: skip
fault("no length, ended by closing", "Connection",
      broken_good(lambda r: b"HTTP/1.0 200 OK\r\ncontent-type: " + kind_of(r).encode()
                  + b"\r\n\r\n" + whole(r)[1], close), ANSWERS, ANSWERS)  # fmt: skip
fault("connection: close", "Connection",
      broken_good(lambda r: whole(r)[0][:-2] + b"connection: close\r\n\r\n" + whole(r)[1], close),
      ANSWERS, ANSWERS)  # fmt: skip
fault("another protocol", "Connection", raw(b"SSH-2.0-boiler\r\n", close), UNREACHABLE, UNREACHABLE)
fault("200 KB of headers", "Connection",
      raw(head(200, *((f"x-{i}", "a" * 1000) for i in range(200)), length=0), go_on),
      UNREACHABLE, UNREACHABLE)  # fmt: skip
fault("100 Continue first", "Connection",
      broken_good(lambda r: b"HTTP/1.1 100 Continue\r\n\r\n" + b"".join(whole(r)), go_on),
      ANSWERS, ANSWERS)  # fmt: skip
fault("103 Early Hints first", "Connection",
      broken_good(lambda r: b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + b"".join(whole(r)), go_on),
      ANSWERS, ANSWERS)  # fmt: skip
fault("a byte a packet", "Connection",
      lambda peer, request: peer.send_bytewise(b"".join(whole(request))), ANSWERS, ANSWERS)  # fmt: skip


def encoded(encoding: str, make: Callable[[Request], bytes]) -> Play:
    """A whole HTTP answer with a content encoding."""

    def answer(request: Request) -> bytes:
        body = make(request)
        kind = SSE if request.streamed else JSON
        return head(200, ("content-encoding", encoding), kind=kind, length=len(body)) + body

    return broken_good(answer, go_on)


fault("gzip", "Connection", encoded("gzip", lambda r: gzip.compress(whole(r)[1])), ANSWERS, ANSWERS, finish=None)
fault("gzip, cut", "Connection", encoded("gzip", lambda r: gzip.compress(half(r))[:-8]), FAILS, FAILS)
fault("gzip that is none", "Connection", encoded("gzip", lambda r: whole(r)[1]), FAILS, FAILS)
fault("unknown content-encoding", "Connection", encoded("boiler", lambda r: gzip.compress(whole(r)[1])), FAILS, FAILS)


# Statuses.


def moved(status: int, where: Callable[[Peer], str]) -> Play:
    """A redirect; what is asked at `/moved` is answered well."""

    def play(peer: Peer, request: Request) -> None:
        if request.path.startswith("/moved"):
            good(peer, request)
        else:
            peer.send(head(status, ("location", where(peer)), length=0))

    return play


for status in (307, 308):
    fault(f"{status} to the same server", "Status",
          moved(status, lambda _: "/moved/v1/chat/completions"), ANSWERS, ANSWERS)  # fmt: skip
fault("307 to another server", "Status",
      moved(307, lambda peer: f"{peer.server.other_origin}/v1/chat/completions"), EITHER, EITHER)  # fmt: skip
fault("307 in a circle", "Status", moved(307, lambda _: "/v1/chat/completions"), FAILS, FAILS, most=25)
fault("307 to nowhere", "Status", reply(307, b""), FAILS, FAILS)

refused(400, said(param="temperature"), note=" with a field's name")
refused(400, flat(400), note=" in Dynamo's shape")
refused(400, json.dumps({"detail": [{"loc": ["body", "top_p"], "msg": WORDS}]}).encode(), note=" with FastAPI's detail")
refused(400, json.dumps({"detail": WORDS}).encode(), note=" with a detail")
refused(400, WORDS.encode(), note=" in plain text", kind="text/plain")
refused(400, said(code="content_filter"), note=" of a content filter")
refused(400, said(code="context_length_exceeded"), note=" for too long a prompt")
refused(400, b"", note=" without a word", words=False)


def _refuses_nvext(peer: Peer, request: Request) -> None:
    if "nvext" in request.data:
        refusal = {"message": "Unknown field: `nvext`", "type": "invalid_request_error", "code": 400}
        reply(400, json.dumps(refusal).encode())(peer, request)
    else:
        good(peer, request)


fault("400 to our hints", "Status", _refuses_nvext, RECOVERS, RECOVERS, times=None)
refused(401, said(code="invalid_api_key"))
refused(401, said(message=f"{WORDS}: {KEY} is no key"), note=" that repeats the key")
refused(403, said())
overloaded(404, b"", note=" without a word (Dynamo starts)")
refused(404, b"", note=" without a word, always", words=False)
refused(404, said(code="model_not_found"), note=" for an unknown model")
overloaded(408, said())
overloaded(409, said())
refused(413, said())
refused(422, said(param="temperature"))
overloaded(429, said())
refused(429, said(), note=", always")
refused(429, said(code="insufficient_quota"), note=" for want of quota")
overloaded(429, said(), ("retry-after", "0"), note=", Retry-After: 0")
overloaded(429, said(), ("retry-after", "20"), note=", Retry-After: 20", waits=(20, 30))
overloaded(429, said(), ("retry-after", "1.5"), note=", Retry-After: 1.5", waits=(1.5, 3))
overloaded(429, said(), ("retry-after-ms", "1200"), note=", retry-after-ms: 1200", waits=(1.2, 2.4))
overloaded(429, said(), ("retry-after", "soon"), note=", Retry-After: soon")
overloaded(429, said(), ("retry-after", "-5"), note=", Retry-After: -5")
fault("429, Retry-After: a date", "Status",
      lambda peer, request: reply(429, said(), ("retry-after", formatdate(time() + 12, usegmt=True)))(peer, request),
      RECOVERS, RECOVERS, waits=(5, 18))  # fmt: skip
refused(429, said(), ("x-should-retry", "false"), note=", x-should-retry: false", most=1)
refused(503, said(), ("x-should-retry", "false"), note=", x-should-retry: false", most=1)
overloaded(403, said(), ("x-should-retry", "true"), note=", x-should-retry: true")
overloaded(500, said())
refused(500, b"", note=" without a word, always", words=False)
refused(500, json.dumps([WORDS]).encode(), note=" with an array, always")
refused(500, f"{WORDS} \xb0".encode("latin-1"), note=" that is not UTF-8, always", kind="text/plain")
overloaded(502, f"<html><h1>{WORDS}</h1></html>".encode(), note=" with HTML", kind="text/html")
refused(502, f"<html><h1>{WORDS}</h1></html>".encode(), note=" with HTML, always", kind="text/html")
overloaded(503, flat(503))
overloaded(503, flat(503), note=" twice", times=2)
fault("503, then closed", "Status", raw(head(503, length=len(flat(503))) + flat(503), close), RECOVERS, RECOVERS)
refused(503, flat(503), note=", always")
overloaded(504, said())
overloaded(529, flat(529))
refused(529, flat(529), note=", always")

_TEN_MB = said(details="cold " * 2_000_000)
refused(400, _TEN_MB, note=" of 10 MB")
refused(503, _TEN_MB, note=" of 10 MB, always")


def _endless_error(peer: Peer, _request: Request) -> None:
    peer.send(head(500))
    peer.send(in_chunk(b'{"error": {"message": "' + WORDS.encode()))
    peer.repeat(in_chunk(b" and cold" * 10_000))


def _dripping_error(peer: Peer, _request: Request) -> None:
    peer.send(head(500))
    peer.send(in_chunk(said()[:-1]))
    peer.repeat(in_chunk(b" "), pause_s=0.02)


fault("500 without end", "Status", _endless_error, fails(500), fails(500))
fault("500 a byte at a time without end", "Status", _dripping_error, FAILS, FAILS, config=ENDLESS)
fault("400 whose body breaks", "Status", raw(head(400, length=999) + said()[:20], reset), FAILS, FAILS)
fault("503 whose body breaks", "Status", raw(head(503, length=999) + said()[:20], reset), RECOVERS, RECOVERS)
fault("503 whose body stops", "Status",
      raw(head(503, length=999) + said()[:20], hang), FAILS, FAILS, config=WAITING)  # fmt: skip


# Answers with status 200 that are none.


def answer(name: str, body: bytes, expect: Expect, **more: Any) -> None:
    """A 200 with this body."""
    fault(name, "Answer", reply(200, body, kind=more.pop("kind", JSON)), expect, None, **more)


answer("an error object", said(), FAILS_WITH_WORDS)
answer("a flat error object", flat(503), FAILS_WITH_WORDS)
answer("no JSON", b'{"id": boiler', FAILS)
answer("not UTF-8", b'{"id": "\xff\xfe\xb0"}', FAILS)
answer("half a JSON", completion()[:120], FAILS)
answer("nothing", b"", FAILS)
answer("blanks", b" \n \n", FAILS)
answer("null", b"null", FAILS)
answer("a number", b"42", FAILS)
answer("an array", b"[]", FAILS)
answer("an empty object", b"{}", FAILS)
answer("HTML", f"<html><h1>{WORDS}</h1></html>".encode(), FAILS, kind="text/html")
answer("plain text", WORDS.encode(), FAILS, kind="text/plain")
answer("choices: null", completion(choices=None), FAILS)
answer("no choices", completion(choices=[]), FAILS)
answer("choices of a wrong type", completion(choices=TEXT), FAILS)
answer("a choice without a message", completion(choices=[{"index": 0, "finish_reason": "stop"}]), FAILS)
answer("a message of a wrong type", completion(choices=[{"index": 0, "message": 7, "finish_reason": "stop"}]), FAILS)
answer("no finish reason", completion(None), FAILS)
answer("finish reason error", completion("error"), FAILS)
answer("finish reason length", completion("length"), ANSWERS, finish="length")
answer("finish reason content_filter", completion("content_filter"), ANSWERS, finish="content_filter")
answer("an event stream", STREAM, EITHER, kind=SSE, finish=None)
answer("no content type", completion(), ANSWERS, kind="")
answer("blanks around the JSON", b"\r\n  " + completion() + b"  \r\n", ANSWERS)

_ODD_USAGE: dict[str, Any] = {"prompt_tokens": "12", "completion_tokens": 4.0, "total_tokens": 16, "boiler": [1]}
_ODD_NVEXT: dict[str, Any] = {"worker_id": "seven", "timing": {"ttft_ms": "fast", "queue": []}, "boiler": None}
answer("usage of odd types", completion(usage=_ODD_USAGE), ANSWERS)
answer("nvext of odd types", completion(nvext=_ODD_NVEXT), ANSWERS)
answer("nvext is text", completion(nvext="boiler"), ANSWERS)
fault("204", "Answer", reply(204, b""), FAILS, FAILS)


# Streams with status 200.


def streams(name: str, play: Play, expect: Expect, **more: Any) -> None:
    """A fault of streamed answers only."""
    fault(name, "Stream", play, None, expect, **more)


streams("no event at all", stream(), FAILS)
streams("[DONE] alone", stream(DONE), FAILS)
streams("ends without a finish reason", stream(*HALF), FAILS)
streams("[DONE] without a finish reason", stream(*HALF, DONE), FAILS)
streams("all tokens, no finish reason", stream(ROLE, *TOKENS, LAST_USAGE, DONE), FAILS)
streams("ends with finish reason error", stream(*HALF, chunk({}, "error"), DONE), FAILS)
streams("ends with finish reason length", stream(ROLE, *TOKENS, chunk({}, "length"), DONE), ANSWERS, finish="length")
streams("ends with finish reason content_filter", stream(ROLE, *TOKENS, chunk({}, "content_filter"), DONE), ANSWERS,
        finish="content_filter")  # fmt: skip
streams(
    "event: error in Dynamo's shape, first", stream(b"event: error\ndata: " + flat(503) + b"\n\n"), FAILS_WITH_WORDS
)
streams("event: error in Dynamo's shape, mid-way",
        stream(*HALF, b"event: error\ndata: " + flat(503) + b"\n\n"), FAILS_WITH_WORDS)  # fmt: skip
streams("event: error in plain text, mid-way",
        stream(*HALF, b"event: error\ndata: " + WORDS.encode() + b"\n\n"), FAILS_WITH_WORDS)  # fmt: skip
streams("event: error with a comment, mid-way (Dynamo)",
        stream(*HALF, b"event: error\n: " + WORDS.encode() + b"\n\n", DONE), FAILS_WITH_WORDS)  # fmt: skip
streams("an error object, first", stream(b"data: " + said(code=503) + b"\n\n"), FAILS_WITH_WORDS)
streams("an error object, mid-way", stream(*HALF, b"data: " + said(code=503) + b"\n\n"), FAILS_WITH_WORDS)
streams("an error object, then [DONE]", stream(*HALF, b"data: " + said(code=503) + b"\n\n", DONE), FAILS_WITH_WORDS)
streams("ends within an event", stream(*HALF, TOKENS[2][:40]), FAILS)
streams("closed within an event", stream(*HALF, TOKENS[2][:40], then=close), FAILS)
streams("reset within an event", stream(*HALF, TOKENS[2][:40], then=reset), FAILS)
streams("closed between events", stream(*HALF, then=close), FAILS)

_TOOL = (ROLE, tool_chunk("", id="call-1", type="function"), tool_chunk('{"item": "bol'))
streams("ends within a tool call", stream(*_TOOL), FAILS)
streams("[DONE] within a tool call", stream(*_TOOL, DONE), FAILS)
streams("reset within a tool call", stream(*_TOOL, then=reset), FAILS)

streams("garbage for an event", stream(*HALF, b"data: {boiler\n\n", *TOKENS[2:], END, DONE), FAILS)
streams("null for an event", stream(*HALF, b"data: null\n\n", *TOKENS[2:], END, DONE), EITHER)
streams("a JSON answer for a stream", reply(200, completion()), EITHER, finish=None)
streams("HTML for a stream", reply(200, f"<html><h1>{WORDS}</h1></html>".encode(), kind="text/html"), FAILS)
streams("silence before the first token", stream(then=hang), TIMES_OUT, config=WAITING)
streams("silence after the first token", stream(*HALF, then=hang), FAILS, config=WAITING)
streams("silence after the finish reason", stream(ROLE, *TOKENS, END, then=hang), EITHER, config=WAITING)
streams("silence after [DONE]", stream(*EVENTS, then=hang), ANSWERS)
streams("reset after the finish reason", stream(ROLE, *TOKENS, END, then=reset), EITHER)
streams("reset after [DONE]", stream(*EVENTS, then=reset), ANSWERS)
streams("tokens without end", stream(*HALF, then=lambda peer: peer.repeat(in_chunk(TOKENS[1]), 0.01)), FAILS,
        config=ENDLESS)  # fmt: skip
streams("a byte at a time without end",
        stream(*HALF, b"data: ", then=lambda peer: peer.repeat(in_chunk(b" "), 0.02)), FAILS,
        config=ENDLESS)  # fmt: skip
streams("comments without end", stream(then=lambda peer: peer.repeat(in_chunk(b": wait\n\n"), 0.02)), FAILS,
        config=ENDLESS)  # fmt: skip


def respelled(old: bytes, new: bytes) -> Play:
    """The good stream with other bytes for some."""
    return stream(*(data.replace(old, new) for data in EVENTS))


streams("no [DONE]", stream(ROLE, *TOKENS, END), ANSWERS)
streams("no blank line at the end", stream(*EVENTS[:-1], b"data: [DONE]"), ANSWERS)
streams("lines end with CR", respelled(b"\n", b"\r"), ANSWERS)
streams("lines end with CR LF", respelled(b"\n", b"\r\n"), ANSWERS)
_CRLF = [data.replace(b"\n", b"\r\n") for data in EVENTS]
streams("CR and LF in two packets", stream(*(part for e in _CRLF for part in (e[:-3], e[-3:]))), ANSWERS)
streams("no space after the colon", respelled(b"data: ", b"data:"), ANSWERS)
streams("data in several lines", respelled(b'"choices":', b'\ndata: "choices":'), ANSWERS)
streams("other fields in the events", respelled(b"data: ", b"id: 7\nevent: message\nretry: 9\ndata: "), ANSWERS)
streams("comments", respelled(b"data: ", b": wait\n\n: wait\ndata: "), ANSWERS)
streams("a byte order mark", stream(b"\xef\xbb\xbf" + ROLE, *EVENTS[1:]), ANSWERS)
streams("all events in one packet", stream(STREAM), ANSWERS)
streams("events cut anywhere", stream(*(STREAM[i : i + 7] for i in range(0, len(STREAM), 7))), ANSWERS)
streams("an event of 2 MB", stream(ROLE, *TOKENS[:2], chunk({"content": PIECES[2]}, boiler="a" * 2**21), END, DONE),
        ANSWERS)  # fmt: skip
streams("two finish reasons", stream(ROLE, *TOKENS, END, END, DONE), ANSWERS)
streams("events after [DONE]", stream(*EVENTS, TOKENS[0], then=close), ANSWERS)
streams("an event without choices", stream(ROLE, chunk({}, choices=[]), *EVENTS[1:]), ANSWERS)
streams("odd usage in a stream",
        stream(ROLE, *TOKENS, END, event({**_BASE, "choices": [], "usage": _ODD_USAGE}), DONE), ANSWERS)  # fmt: skip
streams("odd nvext in a stream",
        stream(ROLE, *TOKENS, chunk({}, "stop", nvext=_ODD_NVEXT), DONE), ANSWERS)  # fmt: skip
