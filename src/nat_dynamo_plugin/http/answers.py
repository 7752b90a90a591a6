"""Read what a server answered into a record while the bytes pass, however these are cut. No I/O in here.

Nothing here raises, whatever the bytes are, and memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from nat_dynamo_plugin.http.answer_fields import (
    CHAT,
    Answer,
    ReadUsage,
    error_text,
    is_said,
    read_answer,
    take,
    take_plain,
)
from nat_dynamo_plugin.http.encodings import decoder
from nat_dynamo_plugin.http.messages import MESSAGES, MessageReader, MessageStreamReader
from nat_dynamo_plugin.http.reader import MAX_UNARY_BYTES, Reader, UnaryReader
from nat_dynamo_plugin.http.sse import MAX_EVENT_BYTES, EventCutter
from nat_dynamo_plugin.secrets import redacted
from nat_dynamo_plugin.telemetry.record import CallRecord

__all__ = ["MAX_DECODED_BYTES", "MAX_EVENT_BYTES", "MAX_UNARY_BYTES", "Reader", "error_text", "reader_for"]

MAX_DECODED_BYTES = 64 * 2**20
"""Of a compressed answer no more than this (bytes, decompressed) is read."""

_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))
_MAX_CHOICES = 4096


def reader_for(
    record: CallRecord,
    status: int,
    headers: Sequence[tuple[bytes, bytes]],
    *,
    read_usage: Sequence[ReadUsage] = (),
    mask: Callable[[str], str] = redacted,
) -> Reader:
    """What reads an answer with this status and these headers into its record.

    Args:
        record: gets the status at once, the rest as it comes.
        status: the HTTP status.
        headers: as they came, in any case.
        read_usage: how the dialects in use read `usage`, besides OpenAI's own names, which are always read. What they
            say comes last.
        mask: takes the secrets out of what is said of an error.
    """
    record.status = status
    encoding = content_type = b""
    for name, value in headers:
        name = name.lower()
        if name == b"content-encoding":
            encoding += b"," + value
        elif name == b"content-type":
            content_type = value
    record.streamed = status < 400 and content_type.lower().lstrip().startswith(b"text/event-stream")
    unary, streamed = _READERS[record.api == MESSAGES]
    reader = (streamed if record.streamed else unary)(record, read_usage)
    reader.mask = mask
    return _EncodedReader(reader, encoding.decode("latin-1")) if encoding else reader


class _UnaryReader(UnaryReader):
    """Reads one answer of OpenAI's APIs."""

    __slots__ = ()

    def _read(self, body: bytes) -> None:
        if not self._read_usage and take_plain(self.record, body):
            return
        if not body.strip():
            self._fail("unreadable", "the answer is empty")
        elif (answer := read_answer(body)) is None:
            self._fail("unreadable", f"the answer is no JSON object: {error_text(body)[:200]}")
        else:
            self._take(answer, body)

    def _take(self, answer: Answer, body: bytes) -> None:
        record = self.record
        take(record, answer, self._read_usage)
        if answer.choices:
            record.finish_reason = answer.choices[0].finish_reason
        elif answer.status is not None:
            record.finish_reason = answer.status
        if is_said(answer.error) or answer.status == "failed":
            self._fail("error_in_answer", error_text(body))
        elif not answer.choices and answer.status is None:
            self._fail("unreadable", f"the answer has no choices: {error_text(body)[:200]}")
        elif answer.choices and record.finish_reason is None:
            self._fail("cut_short", "the answer was cut short: it has no finish_reason")
        elif record.finish_reason == "error":
            self._fail("error_in_answer", 'the server ended the answer with finish_reason "error"')
        elif record.api == CHAT and not all(choice.message for choice in answer.choices or ()):
            self._fail("unreadable", f"a choice of the answer has no message: {error_text(body)[:200]}")


class _StreamReader(Reader):
    """Reads server-sent events as they pass."""

    __slots__ = (
        "_cutter",
        "_first_ms",
        "_head",
        "_last_ms",
        "_lead",
        "_lessons",
        "_open",
        "_tail",
        "_tokens",
        "_trail",
    )

    def __init__(self, record: CallRecord, read_usage: Sequence[ReadUsage]) -> None:
        super().__init__(record, read_usage)
        self._cutter = EventCutter()
        self._tokens = 0
        self._first_ms = 0.0
        self._last_ms = 0.0
        # Choices that were seen; whether they have ended.
        self._open: dict[int, bool] = {}
        # Of the last event that was decoded and had a text: what was before and behind the text.
        self._head = self._tail = b""
        # The same with what is around the data of an event that comes alone, as servers send them.
        self._lead = self._trail = b""
        self._lessons = 0

    def feed(self, chunk: bytes, now_ms: float) -> None:
        # On the path of every token. Servers send the same bytes around each, so an event with the bytes of the last
        # one around another text says nothing new, and is not decoded.
        lead, cutter = self._lead, self._cutter
        if lead and chunk.startswith(lead) and chunk.endswith(self._trail) and cutter.idle:
            text = chunk[len(lead) : -len(self._trail)]
            if text and 0x22 not in text and text[-1] != 0x5C and 0x0A not in text and 0x0D not in text:
                self._tokens += 1
                self._last_ms = now_ms
                return
        if cutter.idle and chunk.startswith(b"data:") and chunk.endswith(b"\n\n"):
            end = len(chunk) - 2
            if chunk.find(b"\n") == end <= MAX_EVENT_BYTES and 0x0D not in chunk:
                # One whole event, as servers send them.
                self._event(b"", chunk[6 if chunk[5] == 0x20 else 5 : end], now_ms)
                return
        for name, data in cutter.feed(chunk):
            self._event(name, data, now_ms)

    def finish(self, now_ms: float) -> None:
        for name, data in self._cutter.end():
            self._event(name, data, now_ms)
        # An event may carry several tokens, so the server's own count is the better divisor.
        tokens = self.record.completion_tokens or self._tokens
        if self._tokens > 1 and tokens > 1:
            self.record.client_itl_ms = (self._last_ms - self._first_ms) / (tokens - 1)
        self._check_end()

    def _check_end(self) -> None:
        # `[DONE]` alone says nothing: a server that was cut off itself may send it all the same.
        whole = all(self._open.values()) if self._open else self.complete and self.record.finish_reason is not None
        if not whole and not self._cutter.lost:
            self._fail("cut_short", "the stream was cut short: it ended without a finish_reason")

    def _event(self, name: bytes, data: bytes, now_ms: float) -> None:
        # As in `feed`, for events that come together or in pieces.
        if self._head and data.startswith(self._head) and data.endswith(self._tail) and name != b"error":
            text = data[len(self._head) : -len(self._tail)]
            if text and 0x22 not in text and text[-1] != 0x5C:  # no quote, and none behind it that is escaped
                self._tokens += 1
                self._last_ms = now_ms
                return
        self._head = self._lead = b""  # what is decoded may say something new
        if self.complete:
            return  # clients read no further
        answer = read_answer(data)
        if name == b"error":
            self._fail("error_in_answer", error_text(data) or "the server sent an error event")
        elif answer is not None:
            self._take(answer, data, now_ms)
        elif data.strip() == b"[DONE]":
            self.complete = True
            self._check_end()  # whatever comes behind it
        else:  # an empty one too, of which OpenAI's library would raise JSON's own error
            self._fail("unreadable", f"an event of the stream is no JSON object: {error_text(data)[:200]}")

    def _take(self, answer: Answer, data: bytes, now_ms: float) -> None:
        record = self.record
        if record.model is None or len(answer.usage) > 4 or len(answer.nvext) > 4:  # longer than null
            take(record, answer, self._read_usage)
        if (len(answer.error) and is_said(answer.error)) or answer.type == "error":
            self._fail("error_in_answer", error_text(data))
        token: Any = None
        choices = answer.choices or ()
        for choice in choices:
            token = choice.token() or token
            ended = choice.finish_reason is not None
            if ended:
                record.finish_reason = choice.finish_reason
                if choice.finish_reason == "error":
                    self._fail("error_in_answer", 'the server ended the answer with finish_reason "error"')
            if ended or (choice.index not in self._open and len(self._open) < _MAX_CHOICES):
                self._open[choice.index] = ended
        if answer.type is not None and not choices:
            self._response_event(answer.type, answer.response)
            token = answer.type.endswith(".delta")
        if token:
            if self._tokens == 0:
                self._first_ms = record.client_ttft_ms = now_ms
            self._tokens += 1
            self._last_ms = now_ms
            if isinstance(token, str):
                self._learn(token, data)

    def _response_event(self, kind: str, response: msgspec.Raw) -> None:
        """An event of the responses API."""
        if is_said(response) and (inner := read_answer(response)) is not None:
            take(self.record, inner, self._read_usage)
        if kind in _ENDS:
            self.record.finish_reason = kind.removeprefix("response.")
            self.complete = True
            if kind == "response.failed":
                self._fail("error_in_answer", error_text(response) or "the response failed")

    def _learn(self, text: str, data: bytes) -> None:
        """Remember what is around the text of a token, if that has been worth its time."""
        if self._lessons <= 16 + self._tokens // 8:
            self._lessons += 1
            written = b'"%b"' % text.encode("utf-8", "replace")
            start = data.find(written)
            if start >= 0:
                self._head, self._tail = data[: start + 1], data[start + len(written) - 1 :]
                self._lead, self._trail = b"data: " + self._head, self._tail + b"\n\n"


_READERS: tuple[tuple[type[Reader], type[Reader]], ...] = (
    (_UnaryReader, _StreamReader),
    (MessageReader, MessageStreamReader),
)
"""For answers in one piece and streams: of OpenAI's APIs, and of Anthropic's."""


class _EncodedReader(Reader):
    """Undoes the content encoding of an answer for the reader of what it holds."""

    __slots__ = ("_encoding", "_now_ms", "_push", "_reader", "_size")

    def __init__(self, reader: Reader, encoding: str) -> None:
        super().__init__(reader.record)
        self._reader = reader
        self._encoding = encoding.strip(", ")
        self._size = 0
        self._now_ms = 0.0
        self._push = decoder(encoding, self._take)

    def _take(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MAX_DECODED_BYTES:
            raise OverflowError
        self._reader.feed(piece, self._now_ms)

    def feed(self, chunk: bytes, now_ms: float) -> None:
        if self._push is None:
            return
        self._now_ms = now_ms
        try:
            self._push(chunk)
        except OverflowError:
            self._push = None
        except Exception as error:  # each library has its own
            self._push = None
            self._fail("unreadable", f"the answer's {self._encoding} encoding is broken: {error}")
        self.complete = self._reader.complete

    def finish(self, now_ms: float) -> None:
        if self._push is not None:
            self._reader.finish(now_ms)
            self.problem = self._reader.problem
