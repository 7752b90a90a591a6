from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.http import answers
from nat_dynamo_plugin.http.answers import MAX_EVENT_BYTES, MAX_UNARY_BYTES, Reader, error_text, reader_for
from nat_dynamo_plugin.telemetry.record import CallRecord, Usage

NVEXT = {
    "worker_id": {"decode_worker_id": 14840016115332408072, "prefill_worker_id": 1},
    "timing": {"ttft_ms": 3.5, "total_time_ms": 20.25, "kv_hit_rate": 0.5, "router_queue_depth": 2},
}
USAGE = {"prompt_tokens": 160, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 144}}
SSE = [(b"Content-Type", b"text/event-stream; charset=utf-8")]
JSON = [(b"content-type", b"application/json")]
DONE = b"data: [DONE]\n\n"


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": more.pop("index", 0), "delta": delta, "finish_reason": finish}
    return event({"model": "m", "choices": [choice], **more})


EVENTS = [
    chunk({"role": "assistant", "content": ""}),
    b": keep-alive\n\n",
    chunk({"content": "Grüße 你好"}),
    chunk({"content": ' "usage":{"prompt_tokens":999} data: x'}),
    b"event: message\r\n" + chunk({"content": "!"}).replace(b"\n\n", b"\r\n\r\n"),
    chunk({}, "stop", nvext=NVEXT),
    event({"model": "m", "choices": [], "usage": USAGE}),
    DONE,
]


def read(
    pieces: Sequence[bytes],
    headers: list[tuple[bytes, bytes]] = SSE,
    status: int = 200,
    times: Sequence[float] | None = None,
    **options: Any,
) -> Reader:
    reader = reader_for(CallRecord(), status, headers, **options)
    for i, piece in enumerate(pieces):
        reader.feed(piece, times[i] if times else 1.0)
    reader.finish(1.0)
    return reader


def read_stream(*pieces: bytes) -> CallRecord:
    return read(pieces).record


def cut(whole: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(c, len(whole)) for c in cuts), len(whole)]
    return [whole[a:b] for a, b in pairwise(edges)]


_CUTS = st.lists(st.integers(min_value=0, max_value=3000), max_size=40)
_ODD: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_ANSWERS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("model", "usage", "nvext", "error", "type", "status", "response", "message", "detail"), _ODD
    )
    | {
        "choices": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": st.integers(0, 2) | _ODD,
                    "finish_reason": st.sampled_from(["stop", "error", None]) | _ODD,
                    "delta": st.fixed_dictionaries({}, optional={"content": _ODD, "tool_calls": _ODD}) | _ODD,
                    "text": _ODD,
                },
            ),
            max_size=3,
        )
    },
)


class TestStream:
    def test_everything_is_read(self) -> None:
        reader = read(EVENTS, times=[float(i) for i in range(len(EVENTS))])
        record = reader.record
        assert reader.complete and reader.problem is None
        assert record.streamed and record.status == 200
        assert record.worker_id == 14840016115332408072
        assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (160, 144, 3)
        assert (record.server_ttft_ms, record.server_total_ms, record.queue_depth) == (3.5, 20.25, 2)
        assert record.finish_reason == "stop" and record.model == "m" and record.error is None
        assert record.client_ttft_ms == 2.0  # the role alone is no token
        assert record.client_itl_ms == (4.0 - 2.0) / (3 - 1)

    @given(_CUTS)
    def test_any_chunking_gives_the_same_telemetry(self, cuts: list[int]) -> None:
        whole = b"".join(EVENTS)
        assert read(cut(whole, cuts)).record == read([whole]).record == read(EVENTS).record

    @given(
        st.lists(
            st.builds(event, _ANSWERS)
            | st.builds(lambda text: chunk({"content": text}), st.text(max_size=4))
            | st.binary(max_size=20)
            | st.sampled_from([*EVENTS, b"\n", b"\r", b"\r\n", b"event: error\n", b"data: \xff\n\n", b"\xef\xbb\xbf"]),
            max_size=12,
        ),
        _CUTS,
    )
    def test_any_bytes_are_survived_and_read_alike_however_they_are_cut(
        self, events: list[bytes], cuts: list[int]
    ) -> None:
        one, other, third = (read(pieces) for pieces in (events, cut(b"".join(events), cuts), [b"".join(events)]))
        assert one.record == other.record == third.record
        assert (one.problem, one.complete) == (other.problem, other.complete) == (third.problem, third.complete)

    @pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
    @pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
    def test_line_ends_and_a_byte_order_mark(self, end: bytes, start: bytes) -> None:
        whole = start + b"".join(EVENTS).replace(b"\r\n", b"\n").replace(b"\n", end)
        expected = read(EVENTS).record
        assert read([whole]).record == expected
        assert read([whole[i : i + 1] for i in range(len(whole))]).record == expected

    def test_an_event_of_several_lines_with_and_without_spaces(self) -> None:
        record = read_stream(
            b'data: {"model":"m",\ndata:"choices":[{"delta":{"content":"x"},\ndata: "finish_reason":"stop"}]}\n\n', DONE
        )
        assert (record.model, record.finish_reason, record.client_ttft_ms, record.error) == ("m", "stop", 1.0, None)

    def test_a_missing_last_line_end(self) -> None:
        assert read_stream(b"".join(EVENTS[:-2]), EVENTS[-2].rstrip()).prompt_tokens == 160

    @pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
    def test_tokens_are_counted_whatever_they_are(self, separators: tuple[str, str]) -> None:
        deltas = ["a", "b", "\n", 'quo"te', "back\\", "", "你", "\x00", '","finish_reason":"x', "z", None]

        def written(delta: str | None, **more: Any) -> bytes:
            data = {"model": "m", "choices": [{"index": 0, "delta": {"content": delta}, "finish_reason": None}], **more}
            return b"data: " + json.dumps(data, separators=separators, ensure_ascii=False).encode() + b"\n\n"

        times = [float(i) for i in range(1, len(deltas) + 1)]
        record = read([written(delta) for delta in deltas], times=times).record
        # All but "" and null, the last at 10 ms.
        assert (record.client_ttft_ms, record.client_itl_ms, record.finish_reason) == (1.0, (10 - 1) / 8, None)

    @pytest.mark.parametrize(
        "last",
        [
            chunk({"content": "b"}, usage=USAGE),
            chunk({"content": "b"}, "stop"),
            chunk({"content": "b"}, nvext=NVEXT),
            chunk({"content": "b"}, error={"message": "died"}),
            chunk({"content": "b"}, index=1),
        ],
    )
    def test_an_event_that_says_more_than_a_token_is_read_after_many_that_do_not(self, last: bytes) -> None:
        tokens = [chunk({"content": "a"})] * 20
        fields = ("prompt_tokens", "finish_reason", "worker_id", "error")
        alone, after = read_stream(last, DONE), read_stream(*tokens, last, DONE)
        assert [getattr(after, name) for name in fields] == [getattr(alone, name) for name in fields]

    def test_a_second_choice_that_never_ends_is_seen_after_many_tokens_of_the_first(self) -> None:
        tokens = [chunk({"content": "a"})] * 20
        assert "cut short" in (read([*tokens, chunk({"content": "b"}, index=1), chunk({}, "stop")]).problem or "")

    def test_few_of_many_tokens_are_decoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        decoded: list[bytes] = []
        original = answers.read_answer
        monkeypatch.setattr(answers, "read_answer", lambda data: [decoded.append(data), original(data)][1])
        worker = {"worker_id": {"decode_worker_id": 7}}
        tokens = [chunk({"content": f"word{i}"}, nvext=worker) for i in range(1000)]
        record = read([*tokens, chunk({}, "stop"), DONE], times=[float(i) for i in range(1002)]).record
        assert len(decoded) < 10
        assert (record.worker_id, record.finish_reason, record.client_itl_ms) == (7, "stop", 1.0)

    @pytest.mark.parametrize("written", ["word%d", 'quo"te%d'])
    def test_and_few_where_some_have_to_be(self, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
        decoded: list[bytes] = []
        original = answers.read_answer
        monkeypatch.setattr(answers, "read_answer", lambda data: [decoded.append(data), original(data)][1])
        read([chunk({"content": (written if i % 20 == 0 else "word%d") % i}) for i in range(1000)])
        assert len(decoded) < 200

    def test_text_that_looks_like_json_is_no_text(self) -> None:
        hidden = 'a"}}],"usage":{"prompt_tokens":160},"choices":[{"index":0,"delta":{"content":"b'
        plain = chunk({"content": "MARK"})
        record = read_stream(plain, plain, plain.replace(b"MARK", hidden.encode()), DONE)
        assert record.prompt_tokens == 160

    def test_an_event_that_is_no_json_is_no_token(self) -> None:
        tokens = [chunk({"content": "MARK"})] * 3
        broken = tokens[0].replace(b"MARK", b"x\\")
        assert read([*tokens, broken], times=[1.0, 2.0, 3.0, 9.0]).record.client_itl_ms == 1.0

    @pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
    def test_a_line_that_ends_within_a_text_is_no_token(self, end: bytes) -> None:
        tokens = [chunk({"content": "MARK"})] * 3
        broken = tokens[0].replace(b"MARK", b"x" + end + b"y")
        reader = read([*tokens, broken], times=[1.0, 2.0, 3.0, 9.0])
        assert (reader.record.client_itl_ms, reader.record.error_type) == (1.0, "unreadable")

    def test_what_was_said_before_can_be_said_again(self) -> None:
        first, second = ({"prompt_tokens": n} for n in (1, 2))
        record = read_stream(
            chunk({"content": "a"}, usage=first), event({"usage": second}), chunk({"content": "b"}, usage=first)
        )
        assert record.prompt_tokens == 1

    def test_a_text_that_is_no_utf_8_loses_itself(self) -> None:
        record = read_stream(chunk({"content": "MARK"}, "stop", usage=USAGE).replace(b"MARK", b"\xff"))
        assert (record.prompt_tokens, record.finish_reason, record.error) == (160, "stop", None)

    def test_a_carriage_return_within_what_came_at_once(self) -> None:
        pieces = [EVENTS[2], b'data: {"model":"m",\rdata: "usage":{"prompt_tokens":160}}\n\n']
        assert read(pieces).record == read([b"".join(pieces)]).record
        assert read(pieces).record.prompt_tokens == 160

    @pytest.mark.parametrize(
        "delta",
        [
            {"reasoning_content": "r"},
            {"reasoning": "r"},
            {"refusal": "no"},
            {"tool_calls": [{"index": 0, "function": {"name": "f"}}]},
        ],
    )
    def test_reasoning_and_tool_calls_are_tokens(self, delta: dict[str, Any]) -> None:
        record = read([EVENTS[0], chunk(delta), chunk({}, "stop")], times=[1.0, 2.0, 3.0]).record
        assert record.client_ttft_ms == 2.0

    def test_the_text_of_a_completion_is_a_token(self) -> None:
        text = {"model": "m", "choices": [{"text": "a", "index": 0}]}
        ended = {"model": "m", "choices": [{"text": "", "index": 0, "finish_reason": "length"}]}
        record = read([event(text), event(ended), DONE], times=[3.0, 4.0, 5.0]).record
        assert (record.client_ttft_ms, record.finish_reason) == (3.0, "length")


class TestEndOfAStream:
    def test_a_stream_that_ends_in_the_middle_was_cut_short(self) -> None:
        reader = read(EVENTS[:4])
        assert reader.problem is not None and "cut short" in reader.problem
        assert (reader.record.error, reader.record.error_type) == (reader.problem, "cut_short")
        assert reader.record.status == 200 and reader.record.failure == "cut_short"

    def test_without_done_a_finish_reason_is_an_end(self) -> None:
        reader = read(EVENTS[:-1])
        assert reader.problem is None and reader.record.error is None and not reader.complete

    def test_without_done_every_choice_has_to_end(self) -> None:
        both = [chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({}, "stop")]
        assert "cut short" in (read(both).problem or "")
        assert read([*both, chunk({}, "stop", index=1)]).problem is None

    def test_an_empty_stream_was_cut_short(self) -> None:
        assert "cut short" in (read([]).problem or "")

    @pytest.mark.parametrize(
        "said",
        [
            b'data: {"error":{"message":"worker died","code":503}}\n\n',
            b'event: error\ndata: {"message":"worker died","type":"internal","code":500}\n\n',
            b'data: {"type":"error","code":"server_error","message":"worker died"}\n\n',
            b'data: {"type":"response.failed","response":{"status":"failed","error":{"message":"worker died"}}}\n\n',
            b'data: {"choices":[{"index":0,"finish_reason":"error"}],"error":{"message":"worker died"}}\n\n',
        ],
    )
    @pytest.mark.parametrize("end", [b"", DONE])
    def test_an_error_inside_a_stream(self, said: bytes, end: bytes) -> None:
        reader = read([EVENTS[2], said, end])
        assert (reader.problem, reader.record.error) == ("worker died", "worker died")
        assert reader.record.error_type == "error_in_answer"

    def test_an_error_is_known_as_soon_as_it_was_said(self) -> None:
        reader = reader_for(record := CallRecord(), 200, SSE)
        reader.feed(b'data: {"error":{"message":"worker died"}}\n\n', 1.0)
        assert record.error == "worker died"

    def test_an_error_event_that_looks_like_a_token(self) -> None:
        token = chunk({"content": "a"})
        assert read([token, token, b"event: error\n" + token]).record.error_type == "error_in_answer"

    def test_a_finish_reason_of_error_without_a_word(self) -> None:
        assert 'finish_reason "error"' in (read([chunk({}, "error"), DONE]).problem or "")

    def test_what_was_said_before_is_not_overwritten(self) -> None:
        record = CallRecord(error="ReadError: gone", error_type="ReadError")
        reader = reader_for(record, 200, SSE)
        reader.finish(1.0)
        assert reader.problem is not None
        assert (record.error, record.error_type) == ("ReadError: gone", "ReadError")


class TestResponsesApi:
    @pytest.mark.parametrize("status", ["completed", "incomplete"])
    def test_a_stream(self, status: str) -> None:
        usage = {"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}
        last = {"type": f"response.{status}", "response": {"model": "m", "status": status, "usage": usage}}
        reader = read(
            [
                b"event: response.created\n" + event({"type": "response.created", "response": {"model": "m"}}),
                b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a"}\n\n',
                b"event: x\n" + event(last),
            ],
            times=[1.0, 2.0, 3.0],
        )
        record = reader.record
        assert reader.complete and reader.problem is None
        assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (9, 2, 4)
        assert (record.finish_reason, record.client_ttft_ms, record.model) == (status, 2.0, "m")

    def test_a_stream_that_ends_early(self) -> None:
        assert "cut short" in (read([event({"type": "response.output_text.delta", "delta": "a"})]).problem or "")

    def test_a_failed_answer_in_one_piece(self) -> None:
        body = b'{"object":"response","status":"failed","error":{"message":"out of room"}}'
        assert read([body], JSON).problem == "out of room"
        assert read([b'{"object":"response","status":"failed"}'], JSON).problem is not None
        assert read([b'{"object":"response","status":"completed","error":null}'], JSON).record.error is None


class TestOddMembers:
    """Each loses itself and nothing else."""

    GOOD: ClassVar[dict[str, Any]] = {
        "model": "m",
        "choices": [{"finish_reason": "stop"}],
        "usage": USAGE,
        "nvext": NVEXT,
    }
    FIELDS = (
        "model",
        "finish_reason",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "worker_id",
        "server_ttft_ms",
        "server_total_ms",
    )

    @pytest.mark.parametrize(
        ("odd", "lost"),
        [
            ({"model": 7}, {"model"}),
            ({"type": 7, "status": {"code": 1}, "response": "hello"}, set()),
            ({"choices": "x"}, {"finish_reason"}),
            ({"choices": [{"finish_reason": "stop", "text": ["a"], "delta": 3, "index": None}, None, 4]}, set()),
            ({"choices": [{"finish_reason": 5}]}, {"finish_reason"}),
            ({"usage": "x"}, {"prompt_tokens", "cached_tokens", "completion_tokens"}),
            ({"usage": {**USAGE, "completion_tokens": 2.5}}, {"completion_tokens"}),
            ({"usage": {**USAGE, "prompt_tokens": "160"}}, {"prompt_tokens"}),
            ({"usage": {**USAGE, "prompt_tokens": -1}}, {"prompt_tokens"}),
            ({"usage": {**USAGE, "prompt_tokens_details": [1]}}, {"cached_tokens"}),
            ({"usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": True}}}, {"cached_tokens"}),
            ({"nvext": []}, {"worker_id", "server_ttft_ms", "server_total_ms"}),
            ({"nvext": {**NVEXT, "timing": "x"}}, {"server_ttft_ms", "server_total_ms"}),
            ({"nvext": {**NVEXT, "timing": {"ttft_ms": "x", "total_time_ms": 20.25}}}, {"server_ttft_ms"}),
            ({"nvext": {**NVEXT, "worker_id": "a"}}, {"worker_id"}),
            ({"nvext": {**NVEXT, "worker_id": {"decode_worker_id": "7"}}}, {"worker_id"}),
        ],
    )
    @pytest.mark.parametrize("streamed", [True, False])
    def test_it(self, odd: dict[str, Any], lost: set[str], streamed: bool) -> None:
        def said(data: dict[str, Any]) -> dict[str, Any]:
            pieces = [event(data), DONE] if streamed else [json.dumps(data).encode()]
            record = read(pieces, SSE if streamed else JSON).record
            # One that does not say how it ended may have been cut.
            assert (record.error is None) is (record.finish_reason is not None)
            return {name: getattr(record, name) for name in self.FIELDS}

        good = said(self.GOOD)
        assert None not in good.values()
        assert said({**self.GOOD, **odd}) == {name: None if name in lost else value for name, value in good.items()}

    def test_a_timing_that_says_less_takes_nothing_back(self) -> None:
        record = read_stream(chunk({}, nvext=NVEXT), chunk({}, "stop", nvext={"timing": {"kv_hit_rate": 0.25}}))
        assert (record.server_ttft_ms, record.kv_hit_rate) == (3.5, 0.25)


class TestUnary:
    def read(self, body: bytes, status: int = 200) -> CallRecord:
        return read([body[i : i + 7] for i in range(0, len(body), 7)], JSON, status).record

    def test_everything_is_read(self) -> None:
        body = {"model": "m", "choices": [{"finish_reason": "tool_calls"}], "usage": USAGE, "nvext": NVEXT}
        record = self.read(json.dumps(body).encode())
        assert (record.finish_reason, record.cached_tokens, record.worker_id) == (
            "tool_calls",
            144,
            14840016115332408072,
        )
        assert not record.streamed and record.client_ttft_ms is None and record.error is None

    def test_an_error_keeps_the_servers_words(self) -> None:
        record = self.read(b'{"error":{"message":"no such model"}}', 404)
        assert (record.error, record.error_type, record.status) == ("no such model", "404", 404)

    def test_an_error_without_a_word(self) -> None:
        assert "529" in (self.read(b"", 529).error or "")

    def test_an_error_said_as_a_stream(self) -> None:
        reader = read([b'{"message":"no such model"}'], SSE, 404)
        assert reader.problem == "no such model" and not reader.record.streamed

    def test_an_answer_without_dynamo_data_has_none(self) -> None:
        record = self.read(b'{"choices":[],"usage":{"prompt_tokens":3}}')
        assert record.prompt_tokens == 3 and record.cached_tokens is None and not record.has_dynamo_data

    @pytest.mark.parametrize(
        ("body", "problem", "kind"),
        [
            (b'{"error":{"message":"upstream died"}}', "upstream died", "error_in_answer"),
            (b'{"error":"upstream died","choices":[]}', "upstream died", "error_in_answer"),
            (b'{"choices":[{"finish_reason":"error"}]}', 'finish_reason "error"', "error_in_answer"),
            (b"", "empty", "unreadable"),
            (b" \n", "empty", "unreadable"),
            (b"null", "no JSON object", "unreadable"),
            (b'["a"]', "no JSON object", "unreadable"),
            (b'{"choices":[', "no JSON object", "unreadable"),
            (b"<html>proxy says hello</html>", "proxy says hello", "unreadable"),
        ],
    )
    def test_a_200_that_is_no_answer(self, body: bytes, problem: str, kind: str) -> None:
        record = self.read(body)
        assert problem in (record.error or "")
        assert (record.error_type, record.status) == (kind, 200)

    @pytest.mark.parametrize("status", [301, 307])
    def test_a_redirect_is_no_answer_and_no_problem(self, status: int) -> None:
        assert self.read(b"", status).error is None

    @given(st.binary(max_size=200) | _ANSWERS.map(lambda data: json.dumps(data).encode()), _CUTS, st.integers(100, 599))
    def test_any_bytes_are_survived(self, body: bytes, cuts: list[int], status: int) -> None:
        assert read(cut(body, cuts), JSON, status).record == read([body], JSON, status).record

    @pytest.mark.parametrize("body", [b"[" * 100_000, b'{"usage":' * 50_000, b'{"nvext":' + b"[" * 50_000])
    def test_nesting_without_end_is_survived(self, body: bytes) -> None:
        assert read([body], JSON).problem is not None
        assert read([b"data: " + body + b"\n\n"]).problem is not None

    def test_a_huge_answer_passes_unread(self) -> None:
        reader = reader_for(CallRecord(), 200, JSON)
        for _ in range(MAX_UNARY_BYTES // 2**20 + 2):
            reader.feed(b" " * 2**20, 1.0)
        assert not reader._chunks  # type: ignore[attr-defined]
        reader.finish(1.0)
        assert reader.record.prompt_tokens is None and reader.problem is None


class TestEncodings:
    def test_a_compressed_answer_is_read(self) -> None:
        body = zlib.compress(json.dumps({"model": "m", "usage": USAGE}).encode())
        record = read([body], [*JSON, (b"Content-Encoding", b"deflate")]).record
        assert (record.model, record.cached_tokens) == ("m", 144)

    @given(_CUTS)
    def test_a_compressed_stream_is_read_however_it_is_cut(self, cuts: list[int]) -> None:
        compressor = zlib.compressobj(wbits=31)
        parts = [compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH) for part in EVENTS]
        headers = [*SSE, (b"content-encoding", b"gzip")]
        reader = read(cut(b"".join([*parts, compressor.flush()]), cuts), headers)
        assert reader.record == read(EVENTS).record and reader.complete and reader.problem is None

    def test_a_token_is_seen_when_it_comes(self) -> None:
        compressor = zlib.compressobj(wbits=31)
        reader = reader_for(record := CallRecord(), 200, [*SSE, (b"content-encoding", b"gzip")])
        reader.feed(compressor.compress(EVENTS[2]) + compressor.flush(zlib.Z_SYNC_FLUSH), 7.0)
        assert record.client_ttft_ms == 7.0

    def test_an_error_keeps_its_words(self) -> None:
        body = zlib.compress(b'{"message":"boom"}', wbits=31)
        assert read([body], [*JSON, (b"content-encoding", b"gzip")], 500).problem == "boom"

    def test_an_encoding_nobody_knows_passes_unread(self) -> None:
        reader = read([b"\x00\x01"], [*JSON, (b"content-encoding", b"rot13")])
        assert reader.problem is None and reader.record.error is None and reader.record.status == 200

    def test_broken_bytes_are_a_problem(self) -> None:
        reader = read([b"no gzip at all"], [*JSON, (b"content-encoding", b"gzip")])
        assert "gzip encoding is broken" in (reader.problem or "")
        assert reader.record.error_type == "unreadable"

    def test_a_little_that_holds_a_lot_passes_unread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(answers, "MAX_DECODED_BYTES", 2**20)
        lines = (b": " + b"x" * 1000 + b"\n") * 3000
        headers = [*SSE, (b"content-encoding", b"gzip")]
        reader = read([zlib.compress(lines + EVENTS[-2] + DONE, wbits=31)], headers)
        assert reader.record.prompt_tokens is None and reader.problem is None and not reader.complete


class TestBounds:
    def test_an_endless_line_does_not_fill_the_memory(self) -> None:
        reader = reader_for(record := CallRecord(), 200, SSE)
        for _ in range(40):
            reader.feed(b"data: " + b"x" * (MAX_EVENT_BYTES // 8), 1.0)
            assert len(reader._cutter._partial) <= MAX_EVENT_BYTES  # type: ignore[attr-defined]
        reader.feed(b"\n\n" + EVENTS[-2], 1.0)
        reader.finish(1.0)
        assert record.prompt_tokens == 160
        assert record.error is None  # what ended the answer may have been in what was not read

    def test_an_event_of_endless_lines_does_not_either(self) -> None:
        reader = reader_for(record := CallRecord(), 200, SSE)
        for _ in range(40):
            reader.feed(b"data: " + b"x" * (MAX_EVENT_BYTES // 8) + b"\n", 1.0)
            assert sum(map(len, reader._cutter._data)) <= MAX_EVENT_BYTES  # type: ignore[attr-defined]
        reader.feed(b"\n" + EVENTS[-2], 1.0)
        assert record.prompt_tokens == 160

    def test_a_large_event_at_once_is_left_out_as_well(self) -> None:
        large = chunk({"content": "x" * MAX_EVENT_BYTES}, usage=USAGE)
        record = read_stream(EVENTS[2], large, DONE)
        assert record.prompt_tokens is None and record == read_stream(EVENTS[2] + large + DONE)

    def test_many_choices_do_not(self) -> None:
        reader = reader_for(CallRecord(), 200, SSE)
        for index in range(10_000):
            reader.feed(chunk({"content": "a"}, index=index), 1.0)
        assert len(reader._open) <= 4096  # type: ignore[attr-defined]


class TestUsageOfDialects:
    BODY = json.dumps({"usage": {**USAGE, "prompt_cache_hit_tokens": 7}}).encode()

    def test_what_a_dialect_reads_comes_last(self) -> None:
        def own(usage: dict[str, Any]) -> Usage:
            return Usage(cached_tokens=usage["prompt_cache_hit_tokens"])

        record = read([self.BODY], JSON, read_usage=[lambda usage: None, own]).record
        assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (160, 7, 3)

    @pytest.mark.parametrize("wrong", [Usage(cached_tokens=-1), Usage("7", True, 1.5), 3])  # type: ignore[arg-type]
    def test_what_is_no_count_is_left_out(self, wrong: Any) -> None:
        record = read([self.BODY], JSON, read_usage=[lambda usage: wrong]).record
        assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (160, 144, 3)

    def test_a_dialect_that_raises_loses_what_it_would_have_said(self) -> None:
        record = read([self.BODY], JSON, read_usage=[lambda usage: usage["no such"], lambda u: Usage(8)]).record
        assert (record.prompt_tokens, record.cached_tokens) == (8, 144)


class TestErrorText:
    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (b'{"message":"m","code":400}', "m"),
            (b'{"error":"flat"}', "flat"),
            (b'{"error":null,"message":"m"}', "m"),
            (b"<html>", "<html>"),
            (b"[1]", "[1]"),
            (b'{"error":{"message":"Unknown parameter.","param":"nvext"}}', "Unknown parameter. (param: nvext)"),
            (b'{"error":{"message":"Unknown: nvext.","param":"nvext"}}', "Unknown: nvext."),
            (b'{"detail":"Not Found"}', "Not Found"),
            (
                b'{"detail":[{"loc":["body","nvext"],"msg":"extra fields not permitted"}]}',
                "body.nvext: extra fields not permitted",
            ),
            (b'{"message":"1 error","detail":[{"loc":["body","nvext"]}]}', "1 error; body.nvext: None"),
            (b'{"detail":{"a":[1]}}', "{'a': [1]}"),
        ],
    )
    def test_the_servers_words(self, body: bytes, text: str) -> None:
        assert error_text(body) == text

    def test_is_cut(self) -> None:
        assert len(error_text(b"x" * 10_000)) == 500

    @given(st.binary(max_size=60) | _ODD.map(lambda data: json.dumps(data).encode()))
    def test_survives_anything(self, body: bytes) -> None:
        assert len(error_text(body)) <= 500
