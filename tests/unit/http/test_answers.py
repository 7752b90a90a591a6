from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.http.answers import MAX_EVENT_BYTES, MAX_UNARY_BYTES, StreamReader, UnaryReader, error_text
from nat_dynamo_plugin.telemetry.record import CallRecord

NVEXT = {
    "worker_id": {"decode_worker_id": 14840016115332408072, "prefill_worker_id": 1},
    "timing": {"ttft_ms": 3.5, "total_time_ms": 20.25, "kv_hit_rate": 0.5, "router_queue_depth": 2},
}
USAGE = {"prompt_tokens": 160, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 144}}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"model": "m", "choices": [choice], **more}, ensure_ascii=False).encode() + b"\n\n"


EVENTS = [
    chunk({"role": "assistant", "content": ""}),
    b": keep-alive\n\n",
    chunk({"content": "Grüße 你好"}),
    chunk({"content": ' "usage":{"prompt_tokens":999} data: x'}),
    b"event: message\r\n" + chunk({"content": "!"}).replace(b"\n\n", b"\r\n\r\n"),
    chunk({}, "stop", nvext=NVEXT),
    b"data: " + json.dumps({"model": "m", "choices": [], "usage": USAGE}).encode() + b"\n\n",
    b"data: [DONE]\n\n",
]


def read_stream(chunks: list[bytes], times: list[float] | None = None) -> CallRecord:
    record = CallRecord(status=200)
    reader = StreamReader(record)
    for i, data in enumerate(chunks):
        reader.feed(data, times[i] if times else 1.0)
    reader.finish(1.0)
    return record


class TestStream:
    def test_everything_is_read(self) -> None:
        record = read_stream(EVENTS, [float(i) for i in range(len(EVENTS))])
        assert record.worker_id == 14840016115332408072
        assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (160, 144, 3)
        assert (record.server_ttft_ms, record.server_total_ms, record.queue_depth) == (3.5, 20.25, 2)
        assert record.finish_reason == "stop" and record.model == "m" and record.error is None
        assert record.client_ttft_ms == 2.0  # the role alone is no token
        assert record.client_itl_ms == (4.0 - 2.0) / (3 - 1)

    @given(st.lists(st.integers(min_value=0, max_value=sum(map(len, EVENTS))), max_size=40))
    def test_any_chunking_gives_the_same_telemetry(self, cuts: list[int]) -> None:
        whole = b"".join(EVENTS)
        edges = [0, *sorted(cuts), len(whole)]
        pieces = [whole[a:b] for a, b in pairwise(edges)]
        assert read_stream(pieces) == read_stream([whole])

    def test_a_missing_last_line_end(self) -> None:
        assert read_stream([b"".join(EVENTS[:-2]), EVENTS[-2].rstrip()]).prompt_tokens == 160

    def test_an_error_inside_a_stream(self) -> None:
        record = read_stream([EVENTS[2], b'data: {"error":{"message":"worker died","code":503}}\n\n'])
        assert record.error == "worker died" and record.finish_reason is None

    def test_the_responses_api(self) -> None:
        done = {
            "type": "response.completed",
            "response": {
                "model": "m",
                "status": "completed",
                "usage": {"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}},
            },
        }
        record = read_stream(
            [
                b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a"}\n\n',
                b"data: " + json.dumps(done).encode() + b"\n\n",
            ]
        )
        assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (9, 2, 4)
        assert record.finish_reason == "completed" and record.client_ttft_ms == 1.0

    def test_an_endless_line_does_not_fill_the_memory(self) -> None:
        reader = StreamReader(record := CallRecord(status=200))
        for _ in range(40):
            reader.feed(b"data: " + b"x" * (MAX_EVENT_BYTES // 8), 1.0)
            assert len(reader._partial) <= MAX_EVENT_BYTES + MAX_EVENT_BYTES // 4
        reader.feed(b"\n\n" + EVENTS[-2], 1.0)
        assert record.prompt_tokens == 160

    @given(st.binary(max_size=300))
    def test_garbage_is_survived(self, data: bytes) -> None:
        read_stream([b"data:" + data + b"\n", data, b'data: {"choices": 3}\n', b'data: {"usage": "x"}\n'])


class TestUnary:
    def read(self, body: bytes, status: int = 200) -> CallRecord:
        record = CallRecord(status=status)
        reader = UnaryReader(record)
        for i in range(0, len(body), 7):
            reader.feed(body[i : i + 7], 5.0)
        reader.finish(5.0)
        return record

    def test_everything_is_read(self) -> None:
        body = {"model": "m", "choices": [{"finish_reason": "tool_calls"}], "usage": USAGE, "nvext": NVEXT}
        record = self.read(json.dumps(body).encode())
        assert (record.finish_reason, record.cached_tokens, record.worker_id) == (
            "tool_calls",
            144,
            14840016115332408072,
        )

    def test_an_error_keeps_the_servers_words(self) -> None:
        assert self.read(b'{"error":{"message":"no such model"}}', 404).error == "no such model"

    def test_an_answer_without_dynamo_data_has_none(self) -> None:
        record = self.read(b'{"choices":[],"usage":{"prompt_tokens":3}}')
        assert record.prompt_tokens == 3 and record.cached_tokens is None and not record.has_dynamo_data

    @given(st.binary(max_size=200))
    def test_garbage_is_survived(self, body: bytes) -> None:
        self.read(body)

    def test_a_huge_answer_passes_unread(self) -> None:
        record = CallRecord(status=200)
        reader = UnaryReader(record)
        for _ in range(MAX_UNARY_BYTES // 2**20 + 2):
            reader.feed(b" " * 2**20, 1.0)
        assert not reader._chunks
        reader.finish(1.0)
        assert record.prompt_tokens is None


def test_error_text() -> None:
    assert error_text(b'{"message":"m","code":400}') == "m"
    assert error_text(b'{"error":"flat"}') == "flat"
    assert error_text(b"<html>") == "<html>"
    assert error_text(b"[1]") == "[1]"
    assert len(error_text(b"x" * 10_000)) == 500
