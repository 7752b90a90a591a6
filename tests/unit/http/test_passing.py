"""A stream that is no whole answer ends in an error event, however its bytes are cut; a whole one passes unchanged."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.http.flow import chained
from nat_dynamo_plugin.http.httpx_shell import HttpxShell
from nat_dynamo_plugin.layers.answer import AnswerLayer
from nat_dynamo_plugin.layers.record import RecordLayer
from nat_dynamo_plugin.telemetry.record import CallRecord


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def token(text: str, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


DONE = b"data: [DONE]\n\n"
WHOLE = token("Ye") + token("s.") + token("", "stop") + DONE
BROKEN = {
    "clean end": token("Ye"),
    "[DONE] alone": token("Ye") + DONE,
    "[DONE] before the end": token("Ye") + DONE + token("s.") + token("", "stop") + DONE,
    "finish reason error": token("Ye") + token("", "error") + DONE,
    "an error event": token("Ye") + b'event: error\ndata: {"message": "the boiler is cold", "code": 503}\n\n',
    "an error object": token("Ye") + event({"error": {"message": "the boiler is cold"}}),
    "an event of blanks": token("Ye") + b"data:  \n\n" + token("s.", "stop") + DONE,
    "an empty event": token("Ye") + b"data:\n\n" + token("s.", "stop") + DONE,
    "within an event": token("Ye") + b'data: {"choices": [{"ind',
    "within a tool call": event(
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"item": "bol'}}]}}]}
    ),
    "garbage": token("Ye") + b"data: {garbage\n\n" + token("s.") + DONE,
    "nothing": b"",
}


class Body(httpx.SyncByteStream):
    def __init__(self, pieces: list[bytes], error: Exception | None = None) -> None:
        self.pieces, self.error = pieces, error

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.error is not None:
            raise self.error


def client(pieces: list[bytes], records: list[CallRecord], error: Exception | None = None) -> httpx.Client:
    def serve(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Body(pieces, error))

    send = chained([RecordLayer(emit=records.append), AnswerLayer()])
    return httpx.Client(transport=HttpxShell(httpx.MockTransport(serve), send))


def ask(pieces: list[bytes], error: Exception | None = None) -> tuple[str, Exception | None, CallRecord]:
    records: list[CallRecord] = []
    text, raised = "", None
    with client(pieces, records, error) as http:
        llm = openai.OpenAI(api_key="k", base_url="http://server/v1", http_client=http, max_retries=0)
        try:
            for chunk in llm.chat.completions.create(model="m", messages=[], stream=True):
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
        except Exception as caught:
            raised = caught
    (record,) = records
    return text, raised, record


def cut(data: bytes, at: list[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(i % (len(data) + 1) for i in at)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_a_whole_answer_passes_unchanged_however_it_is_cut(at: list[int]) -> None:
    text, raised, record = ask(cut(WHOLE, at))
    assert (text, raised, record.error, record.finish_reason) == ("Yes.", None, None, "stop")


@pytest.mark.parametrize("name", BROKEN)
@given(at=st.lists(st.integers(0, 10_000), max_size=6))
def test_no_half_answer_passes_for_one(name: str, at: list[int]) -> None:
    text, raised, record = ask(cut(BROKEN[name], at))
    assert isinstance(raised, openai.APIError) and record.failed
    assert "Ye".startswith(text)
    if "boiler" in str(BROKEN[name]):
        assert "the boiler is cold" in str(raised) and record.error == "the boiler is cold"


@given(at=st.lists(st.integers(0, 10_000), max_size=6), end=st.integers(0, len(WHOLE) - len(DONE) - 2))
def test_a_connection_that_breaks_is_the_frameworks_own_error(at: list[int], end: int) -> None:
    _, raised, record = ask(cut(WHOLE[:end], at), httpx.ReadError("connection reset"))
    assert isinstance(raised, openai.APIError) and record.error == "ReadError: connection reset"


def test_who_reads_the_bytes_gets_the_exception_as_well() -> None:
    records: list[CallRecord] = []
    with (
        client([token("Ye")], records, httpx.ReadError("reset")) as http,
        http.stream("POST", "http://server/v1/chat/completions", json={}) as response,
    ):
        seen = []
        with pytest.raises(httpx.ReadError, match="reset"):
            seen.extend(response.iter_raw())
    assert records[0].error == "ReadError: reset"
