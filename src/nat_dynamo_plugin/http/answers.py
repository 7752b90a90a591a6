"""Read what a server answered while the bytes pass: from JSON, and from server-sent events. No I/O in here.

Only the fields that telemetry needs are decoded (`msgspec` skips the rest); nothing that can not be read is an error.
Protocol: OpenAI's chat completions, completions and responses, plus Dynamo's `nvext` (`worker_id`, `timing`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from nat_dynamo_plugin.telemetry.record import CallRecord

MAX_UNARY_BYTES = 16 * 2**20
"""Answers above this size (bytes) pass unread, so that memory stays bounded."""
MAX_EVENT_BYTES = 2**20
"""A server-sent event above this size (bytes) passes unread."""


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    # The responses API has its own names.
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None


class _Worker(msgspec.Struct):
    decode_worker_id: int | None = None


class _Timing(msgspec.Struct):
    ttft_ms: float | None = None
    total_time_ms: float | None = None
    prefill_wait_time_ms: float | None = None
    kv_hit_rate: float | None = None
    router_queue_depth: int | None = None


class _Nvext(msgspec.Struct):
    worker_id: _Worker | None = None
    timing: _Timing | None = None


class _Delta(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None
    delta: _Delta | None = None
    text: str | None = None


class _Inner(msgspec.Struct):
    """The `response` object inside the events of the responses API."""

    model: str | None = None
    status: str | None = None
    usage: _Usage | None = None
    nvext: _Nvext | None = None


class _Answer(msgspec.Struct):
    model: str | None = None
    type: str | None = None
    status: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    nvext: _Nvext | None = None
    response: _Inner | None = None
    error: Any = None
    message: Any = None


_decode = msgspec.json.Decoder(_Answer).decode
_decode_any = msgspec.json.Decoder().decode


def _take_usage(record: CallRecord, usage: _Usage) -> None:
    for prompt, completion, details in (
        (usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details),
        (usage.input_tokens, usage.output_tokens, usage.input_tokens_details),
    ):
        if prompt is not None:
            record.prompt_tokens = prompt
        if completion is not None:
            record.completion_tokens = completion
        if details is not None and details.cached_tokens is not None:
            record.cached_tokens = details.cached_tokens


def _take_nvext(record: CallRecord, nvext: _Nvext) -> None:
    if nvext.worker_id is not None and nvext.worker_id.decode_worker_id is not None:
        record.worker_id = nvext.worker_id.decode_worker_id
    timing = nvext.timing
    if timing is not None:
        record.server_ttft_ms = timing.ttft_ms
        record.server_total_ms = timing.total_time_ms
        record.server_prefill_wait_ms = timing.prefill_wait_time_ms
        record.kv_hit_rate = timing.kv_hit_rate
        record.queue_depth = timing.router_queue_depth


def _take(record: CallRecord, answer: _Answer | _Inner) -> None:
    if answer.model is not None:
        record.model = answer.model
    if answer.usage is not None:
        _take_usage(record, answer.usage)
    if answer.nvext is not None:
        _take_nvext(record, answer.nvext)


def error_text(body: bytes) -> str:
    """The server's own words out of an error body, at most 500 characters."""
    try:
        data = _decode_any(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body[:2000].decode("utf-8", "replace")[:500]
    error = data.get("error", data) if isinstance(data, dict) else data
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:500]


class UnaryReader:
    """Reads one JSON answer into a record when it is complete."""

    __slots__ = ("_chunks", "_record", "_size")

    def __init__(self, record: CallRecord) -> None:
        self._record = record
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def complete(self) -> bool:
        """Never known before the connection says so."""
        return False

    def feed(self, chunk: bytes, now_ms: float) -> None:
        """Take the next bytes; `now_ms` is the time since the request, in ms."""
        self._size += len(chunk)
        if self._size <= MAX_UNARY_BYTES:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()

    def finish(self, now_ms: float) -> None:
        """Decode what has come."""
        record = self._record
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        if not body:
            return
        if record.status is not None and record.status >= 400:
            record.error = error_text(body)
            return
        try:
            answer = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        _take(record, answer)
        if answer.choices:
            record.finish_reason = answer.choices[0].finish_reason
        elif answer.status is not None:
            record.finish_reason = answer.status


class StreamReader:
    """Reads server-sent events into a record as they pass, however the bytes are cut."""

    __slots__ = ("_first_ms", "_last_ms", "_partial", "_record", "_skipping", "_tokens", "complete")

    def __init__(self, record: CallRecord) -> None:
        self._record = record
        self._partial = b""
        self._skipping = False
        self._tokens = 0
        self._first_ms = 0.0
        self._last_ms = 0.0
        self.complete = False
        """Whether the last event has passed: `[DONE]`, or the end of a response of the responses API."""

    def feed(self, chunk: bytes, now_ms: float) -> None:
        """Take the next bytes; `now_ms` is the time since the request, in ms."""
        if not self._partial and not self._skipping:
            end = len(chunk) - 2
            if chunk.find(b"\n") == end and chunk[end:] == b"\n\n" and chunk.startswith(b"data:"):
                self._event(chunk[5:], now_ms)  # one whole event, as servers send them
                return
        lines = (self._partial + chunk).split(b"\n") if self._partial else chunk.split(b"\n")
        self._partial = lines.pop()
        for line in lines:
            if self._skipping:
                self._skipping = False  # the rest of an event that was too long to keep
            elif line.startswith(b"data:"):
                self._event(line[5:], now_ms)
        if len(self._partial) > MAX_EVENT_BYTES:
            self._partial, self._skipping = b"", True

    def _event(self, data: bytes, now_ms: float) -> None:
        # On the path of every token, so what most events have not is asked for first and only once.
        try:
            answer = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if data.strip() == b"[DONE]":
                self.complete = True
            return
        record = self._record
        if record.model is None or answer.usage is not None or answer.nvext is not None:
            _take(record, answer)
        token = False
        for choice in answer.choices or ():
            if choice.finish_reason is not None:
                record.finish_reason = choice.finish_reason
            delta = choice.delta
            if delta is not None:
                token = token or bool(delta.content or delta.reasoning_content or delta.tool_calls)
            token = token or bool(choice.text)
        if answer.error is not None:
            record.error = error_text(data)
        if not answer.choices:
            if answer.response is not None:
                _take(record, answer.response)
                if answer.response.status not in (None, "in_progress", "queued"):
                    record.finish_reason = answer.response.status
                    self.complete = True
            token = answer.type is not None and answer.type.endswith(".delta")
        if token:
            if self._tokens == 0:
                self._first_ms = record.client_ttft_ms = now_ms
            self._tokens += 1
            self._last_ms = now_ms

    def finish(self, now_ms: float) -> None:
        """Take a last line that had no line end, and work out the inter-token latency."""
        if self._partial.startswith(b"data:") and not self._skipping:
            self._event(self._partial[5:], now_ms)
        self._partial = b""
        # An event may carry several tokens, so the server's own count is the better divisor.
        tokens = self._record.completion_tokens or self._tokens
        if self._tokens > 1 and tokens > 1:
            self._record.client_itl_ms = (self._last_ms - self._first_ms) / (tokens - 1)
