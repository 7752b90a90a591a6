"""The innermost layer: what came back, looked at before anybody else does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from nat_dynamo_plugin.http.answer_fields import CHAT, ReadUsage
from nat_dynamo_plugin.http.answers import Reader, error_text, reader_for
from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.encodings import decoder
from nat_dynamo_plugin.http.flow import MAX_ERROR_BYTES, Close, Flow, ReadBody, Send
from nat_dynamo_plugin.http.headers import Headers
from nat_dynamo_plugin.secrets import Secrets, known

MAX_ANSWER_BYTES = 64 * 2**20
"""Longest answer unless somebody says otherwise."""
NO_ANSWER = 502
"""Status of a 200 that is no answer: the server got none from whoever should have given it."""
_SECRETS = ("authorization", "api-key", "x-api-key")


class AnswerLayer:
    """Lets only whole answers pass for answers, and gives errors OpenAI's shape.

    - A 200 that carries an error, no JSON, or no choice that has ended becomes a 502 with what it said.
    - Dynamo 1.6.0 answers `{"message": ..., "type": ..., "code": ...}` where OpenAI answers `{"error": {...}}`. The
      OpenAI library takes both, but Agno then says "Unknown model error".
    - An error answer is read to a bound, and a key that it repeats is masked.
    - Of a stream the first piece is read.

    Args:
        read_usage: what reads the usage of servers that do not name it as OpenAI does.
        max_bytes: longest answer, in bytes as they come.
    """

    def __init__(self, read_usage: Sequence[ReadUsage] = (), max_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._read_usage = tuple(read_usage)
        self._max_bytes = max_bytes

    def flow(self, call: Call, send: Send) -> Flow:
        """Send, and look at what comes back."""
        reply: Reply = yield from send(call)
        record = call.record
        record.error = record.error_type = None  # of an attempt before
        if reply.status >= 400:
            yield ReadBody(reply, MAX_ERROR_BYTES)
            encoding = reply.headers.get("content-encoding")
            if reply.content is None:
                yield Close(reply)
                reply = reply.with_content(b"".join(reply.head)[:MAX_ERROR_BYTES])
            reply = reshaped(reply, _masked_bytes(call.headers, _decoded(reply.content or b"", encoding)))
        call.most_bytes = self._max_bytes
        mask = partial(_masked, call.headers)  # not the call, which has the reader
        call.read_by(reader_for(record, reply.status, reply.raw_headers, read_usage=self._read_usage, mask=mask))
        if 300 <= reply.status < 400:
            record.streamed = False
            record.error, record.error_type = f"HTTP {reply.status}, a redirect that was not followed", "redirect"
            return reply
        if record.streamed and is_stream_asked_for(call) is False:
            yield Close(reply)
            return self._other(call, "an event stream came where one answer was asked for")
        if record.streamed:
            if reply.content is None:
                # Down here, so that all that this attempt holds is free before another one is made.
                yield ReadBody(reply, 0)
            return reply
        if reply.content is None:
            yield ReadBody(reply, self._max_bytes)
        if reply.content is None:
            for piece in reply.head:
                call.feed(piece)
            yield Close(reply)
            return made(NO_ANSWER, record.error or "the answer is too long", record.error_type)
        call.feed(reply.content)
        if not call.is_whole() and reply.status < 300:
            return made(NO_ANSWER, f"{reply.status}, but no answer: {record.error}", record.error_type)
        if reply.status < 300 and is_stream_asked_for(call):
            return self._other(call, "one answer came where an event stream was asked for")
        return reply

    @staticmethod
    def _other(call: Call, message: str) -> Reply:
        """What clients would take for an answer without a word, or for no answer at all."""
        call.record.error, call.record.error_type = message, "unreadable"
        call.read_by(Reader(call.record))
        return made(NO_ANSWER, f"{call.record.status}, but no answer: {message}", "unreadable")


class _Asked(msgspec.Struct):
    messages: msgspec.Raw
    stream: Any = None


_asked = msgspec.json.Decoder(_Asked).decode


def is_stream_asked_for(call: Call) -> bool | None:
    """Whether a chat completion is to be streamed; `None` if that is not known."""
    body = call.body.raw
    if body is None or call.api != CHAT:
        return None
    if call.record.streamed and body.rfind(b'"stream":true') >= 0:
        return True  # as OpenAI's library has it; so long bodies need not be parsed
    if not call.record.streamed and body.rfind(b'"stream"') < 0:
        return False
    try:
        return bool(_asked(body).stream)
    except msgspec.DecodeError:
        return None


def made(status: int, message: str, kind: str | None) -> Reply:
    """An error in OpenAI's shape."""
    return Reply.made(status, json.dumps({"error": {"message": message, "type": kind, "code": status}}).encode())


def refused(call: Call, status: int, message: str, kind: str) -> Reply:
    """The error of a call that a layer ends by itself; the call's record says so too."""
    call.record.error, call.record.error_type = message, kind
    return made(status, message, kind)


def reshaped(reply: Reply, content: bytes) -> Reply:
    """The error reply with its error object under `error`; one that is no JSON, or too long, with its text there."""
    try:
        error: Any = json.loads(content)
    except ValueError:
        error = None
    if isinstance(error, dict) and "error" not in error and "message" in error:
        error = {"error": error}
    elif len(content) >= MAX_ERROR_BYTES:
        error = {"error": {"message": error_text(content), "type": None, "code": reply.status}}
    elif content == reply.content:
        return reply
    else:
        error = None
    body = content if error is None else json.dumps(error).encode()
    return reply.with_content(body)


def _decoded(content: bytes, encoding: str | None) -> bytes:
    """The content without its encoding, as far as it goes within `MAX_ERROR_BYTES`; as it is if nobody knows how."""
    pieces: list[bytes] = []

    def take(piece: bytes) -> None:
        pieces.append(piece)
        if sum(map(len, pieces)) >= MAX_ERROR_BYTES:
            raise BufferError

    decode = decoder(encoding, take) if encoding else None
    if decode is None:
        return content
    try:
        decode(content)
    except Exception:  # whatever a library raises for bytes that are broken, or enough of it
        if not pieces:
            return content
    return b"".join(pieces)[:MAX_ERROR_BYTES]


def _sent(headers: Headers) -> Secrets:
    """The keys of a request, which its caller may have put there and nobody else knows."""
    sent = Secrets()
    for name in _SECRETS:
        sent.remember((headers.get(name) or "").rpartition(" ")[2])
    return sent


def _masked(headers: Headers, text: str) -> str:
    """The text without keys: those that this process knows, and those that were sent."""
    return _sent(headers).redacted(known.redacted(text))


def _masked_bytes(headers: Headers, content: bytes) -> bytes:
    return _sent(headers).redacted_bytes(known.redacted_bytes(content))
