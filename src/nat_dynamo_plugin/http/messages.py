"""Reads answers of Anthropic's Messages API, in one piece and streamed. No I/O in here.

Tolerant as `answers` is: nothing raises, whatever the bytes are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nat_dynamo_plugin.dialects.anthropic import messages_usage
from nat_dynamo_plugin.http.answer_fields import ReadUsage, error_text, take_usage
from nat_dynamo_plugin.http.reader import Reader, UnaryReader
from nat_dynamo_plugin.http.sse import EventCutter
from nat_dynamo_plugin.telemetry.record import CallRecord

MESSAGES = "messages"
"""Name of the API in records."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        return _decode(data)
    except (ValueError, RecursionError):
        return None


def _within(data: dict[str, Any], name: str) -> dict[str, Any]:
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _take_message(record: CallRecord, message: dict[str, Any]) -> None:
    if isinstance(model := message.get("model"), str):
        record.model = model
    if isinstance(reason := message.get("stop_reason"), str):
        record.finish_reason = reason


def _take_usage(record: CallRecord, usage: dict[str, Any]) -> None:
    found = messages_usage(usage)
    if found is not None:
        take_usage(record, found)


class MessageReader(UnaryReader):
    """Reads a message in one piece."""

    __slots__ = ()

    def _read(self, body: bytes) -> None:
        message = _object(body)
        if message is None:
            self._fail("unreadable", f"the answer is no JSON object: {error_text(body)[:200] or 'it is empty'}")
        elif message.get("type") == "error" or "error" in message:
            self._fail("error_in_answer", error_text(body))
        elif not isinstance(message.get("content"), list):
            self._fail("unreadable", f"the answer has no content: {error_text(body)[:200]}")
        else:
            _take_message(self.record, message)
            _take_usage(self.record, _within(message, "usage"))
            if self.record.finish_reason is None:
                self._fail("cut_short", "the answer was cut short: it has no stop_reason")


class MessageStreamReader(Reader):
    """Reads the events of a streamed message as they pass."""

    __slots__ = ("_cutter", "_first_ms", "_last_ms", "_tokens", "_usage")

    def __init__(self, record: CallRecord, read_usage: Sequence[ReadUsage] = ()) -> None:
        super().__init__(record, read_usage)
        self._cutter = EventCutter()
        self._usage: dict[str, Any] = {}
        self._tokens = 0
        self._first_ms = self._last_ms = 0.0

    def feed(self, chunk: bytes, now_ms: float) -> None:
        """Take the next bytes."""
        for name, data in self._cutter.feed(chunk):
            self._event(name, data, now_ms)

    def finish(self, now_ms: float) -> None:
        """Take the end."""
        for name, data in self._cutter.end():
            self._event(name, data, now_ms)
        _take_usage(self.record, self._usage)
        tokens = self.record.completion_tokens or self._tokens
        if self._tokens > 1 and tokens > 1:
            self.record.client_itl_ms = (self._last_ms - self._first_ms) / (tokens - 1)
        if not self.complete and not self._cutter.lost:
            self._fail("cut_short", "the stream was cut short: it ended without message_stop")

    def _event(self, name: bytes, data: bytes, now_ms: float) -> None:
        if name == b"content_block_delta" or b"content_block_delta" in data[:40]:
            # The event of nearly every token; what is in it is the caller's.
            if self._tokens == 0:
                self._first_ms = self.record.client_ttft_ms = now_ms
            self._tokens += 1
            self._last_ms = now_ms
            return
        event = _object(data)
        if event is None:
            self._fail("unreadable", f"an event of the stream is no JSON object: {error_text(data)[:200]}")
            return
        kind = event.get("type")
        if kind == "error" or name == b"error":
            self._fail("error_in_answer", error_text(data) or "the server sent an error event")
        elif kind == "message_start":
            message = _within(event, "message")
            _take_message(self.record, message)
            self._count(_within(message, "usage"))
        elif kind == "message_delta":
            _take_message(self.record, _within(event, "delta"))
            self._count(_within(event, "usage"))
        elif kind == "message_stop":
            self.complete = True

    def _count(self, usage: dict[str, Any]) -> None:
        # What a later event says is of the whole message, and need not repeat what an earlier one has said.
        self._usage.update({name: value for name, value in usage.items() if value is not None})
