"""Whatever a server answers, a caller gets an answer or an exception of OpenAI's library, and the record says which."""

from __future__ import annotations

import gzip
import random
import zlib

import httpx
import openai

from nat_dynamo_plugin.dialects import load_dialects
from nat_dynamo_plugin.dialects.speaker import Speaker
from nat_dynamo_plugin.http.answers import reader_for
from nat_dynamo_plugin.telemetry.record import CallRecord

from .answers import answer, broken_stream, cut, events, stream
from .calls import Body, Caller
from .examples import changed_bytes, examples

STATUSES = (200, 200, 200, 200, 201, 204, 302, 400, 401, 404, 422, 429, 500, 503, 529, 599)
KINDS = (b"application/json", b"text/event-stream", b"text/html; charset=utf-16", b"", b"\xff", b"text/plain")


def encoded(dice: random.Random, body: bytes) -> tuple[bytes, bytes]:
    """A content encoding and the body in it; not always in truth."""
    match dice.randrange(8):
        case 0:
            return b"gzip", gzip.compress(body, 1)
        case 1:
            return b"deflate", zlib.compress(body, 1)
        case 2:
            return b"gzip", changed_bytes(dice, gzip.compress(body, 1))
        case 3:
            return dice.choice((b"br", b"zstd", b"gzip, deflate", b"identity", b"nonsense", b"\xff")), body
        case _:
            return b"", body


def reply(dice: random.Random, streamed: bool) -> tuple[int, list[tuple[bytes, bytes]], list[bytes]]:
    """Status, headers and pieces of an answer."""
    likely = dice.random() < 0.8
    kind = (KINDS[1] if streamed else KINDS[0]) if likely else dice.choice(KINDS)
    body = answer(dice)
    if kind == KINDS[1] and likely:
        is_broken = dice.random() < 0.7
        body = broken_stream(dice, fields=False) if is_broken else stream(dice, events(dice), fields=False)
    encoding, body = encoded(dice, body)
    headers = [(b"content-type", kind), *([(b"content-encoding", encoding)] if encoding else [])]
    return dice.choice(STATUSES), headers, cut(dice, body) if len(body) < 5000 else [body]


def test_readers_bear_everything() -> None:
    usage = Speaker(load_dialects(["dynamo", "annotations", "telemetry"])).usage_readers
    for name, dice in examples():
        status, headers, pieces = reply(dice, dice.random() < 0.5)
        record = CallRecord(api="chat_completions")
        try:
            reader = reader_for(record, status, headers, read_usage=usage)
            for at, piece in enumerate(pieces):
                reader.feed(piece, float(at))
            reader.finish(float(len(pieces)))
            record.to_dict()
        except Exception as error:
            raise AssertionError(f"example {name}: {status} {headers} {pieces} raises {error!r}") from error
        assert record.failed or 200 <= status < 400, f"example {name}: {status} {pieces} is no failure: {record}"


def test_a_caller_gets_an_answer_or_an_exception_of_openai() -> None:
    caller = Caller()
    breaks = (httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError)
    for name, dice in examples():
        streamed = dice.random() < 0.5
        status, headers, pieces = reply(dice, streamed)
        error = dice.choice(breaks)("broken") if dice.random() < 0.1 else None
        seen = caller.call(httpx.Response(status, headers=headers, stream=Body(pieces, error)), streamed=streamed)
        # Of a redirect to nowhere the library reads the body itself, so a break in it comes as the HTTP library has it.
        broken = (httpx.TransportError,) if status == 302 else ()
        said = f"example {name}: {status} {headers} {b''.join(pieces)[:2000]!r} {error!r}: {seen}"
        assert seen.error is None or isinstance(seen.error, (openai.OpenAIError, *broken)), said
        assert seen.record.failed == (seen.error is not None), said
        if seen.error is None:
            assert 200 <= status < 300, said
            assert streamed or seen.answer.choices[0].message is not None, said
