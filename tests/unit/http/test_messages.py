from __future__ import annotations

import json
from typing import Any

import pytest

from nat_dynamo_plugin.http.answers import reader_for
from nat_dynamo_plugin.http.call import api_of
from nat_dynamo_plugin.http.messages import MESSAGES
from nat_dynamo_plugin.telemetry.record import CallRecord

USAGE = {"input_tokens": 10, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 10, "output_tokens": 1}
MESSAGE = {"type": "message", "model": "claude", "content": [], "stop_reason": "end_turn", "usage": USAGE}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "stop_reason": None}},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "b"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
    {"type": "message_stop"},
]


def stream(events: list[dict[str, Any]]) -> bytes:
    return "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events).encode()


def read(body: bytes, *, streamed: bool = False, status: int = 200, step: int = 10**6) -> CallRecord:
    record = CallRecord(api=MESSAGES)
    kind = b"text/event-stream" if streamed else b"application/json"
    reader = reader_for(record, status, [(b"content-type", kind)])
    for number, start in enumerate(range(0, len(body), step)):
        reader.feed(body[start : start + step], float(number))
    reader.finish(1000.0)
    return record


def tokens(record: CallRecord) -> tuple[Any, ...]:
    return record.prompt_tokens, record.cached_tokens, record.cache_write_tokens, record.completion_tokens


@pytest.mark.parametrize(
    ("method", "path", "api"),
    [
        ("POST", b"/v1/messages", "messages"),
        ("POST", b"/anthropic/v1/messages?beta=true", "messages"),
        ("POST", b"/v1/threads/t/messages", None),
        ("POST", b"/v1/messages/count_tokens", None),
        ("GET", b"/v1/messages", None),
    ],
)
def test_which_requests_they_are(method: str, path: bytes, api: str | None) -> None:
    assert api_of(method, path) == api


def test_a_message_in_one_piece() -> None:
    record = read(json.dumps(MESSAGE).encode())
    assert (record.error, record.model, record.finish_reason) == (None, "claude", "end_turn")
    assert tokens(record) == (100, 80, 10, 1)


@pytest.mark.parametrize("step", [1, 7, 10**6])
def test_a_streamed_message_however_it_is_cut(step: int) -> None:
    record = read(stream(EVENTS), streamed=True, step=step)
    assert (record.error, record.model, record.finish_reason) == (None, "claude", "tool_use")
    assert tokens(record) == (100, 80, 10, 7)
    assert record.client_ttft_ms is not None and record.client_itl_ms is not None


@pytest.mark.parametrize("kept", range(len(EVENTS)))
def test_a_stream_without_its_end_is_cut_short(kept: int) -> None:
    record = read(stream(EVENTS[:kept]), streamed=True)
    assert record.error_type == "cut_short"
    if kept:
        assert record.prompt_tokens == 100


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "unreadable"),
        (b"[1]", "unreadable"),
        (b"{}", "unreadable"),
        (json.dumps({"type": "error", "error": {"message": "overloaded"}}).encode(), "error_in_answer"),
        (json.dumps({**MESSAGE, "stop_reason": None}).encode(), "cut_short"),
    ],
)
def test_what_is_no_answer(body: bytes, kind: str) -> None:
    assert read(body).error_type == kind


def test_an_error_in_a_stream() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    record = read(stream([*EVENTS[:4], error]), streamed=True)
    assert (record.error_type, record.error) == ("error_in_answer", "Overloaded")


def test_an_error_status_is_in_the_servers_words() -> None:
    body = json.dumps({"type": "error", "error": {"type": "x", "message": "too many marks"}}).encode()
    assert read(body, status=400).error == "too many marks"
