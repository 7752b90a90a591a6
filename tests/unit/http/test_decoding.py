"""Encoded answers, whole and streamed, are decoded before anybody looks at them."""

from __future__ import annotations

import gzip

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

from .test_passing import WHOLE, Body, cut


def streamed(pieces: list[bytes], encoding: str) -> tuple[str, CallRecord]:
    """The text of a streamed answer, and its record."""
    records: list[CallRecord] = []

    def serve(request: httpx.Request) -> httpx.Response:
        headers = {"content-type": "text/event-stream", "content-encoding": encoding}
        return httpx.Response(200, headers=headers, stream=Body(pieces))

    send = chained([RecordLayer(emit=records.append), AnswerLayer()])
    with httpx.Client(transport=HttpxShell(httpx.MockTransport(serve), send)) as http:
        llm = openai.OpenAI(api_key="k", base_url="http://server/v1", http_client=http, max_retries=0)
        chunks = llm.chat.completions.create(model="m", messages=[], stream=True)
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    return text, records[0]


@given(st.lists(st.integers(0, 10_000), max_size=8))
def test_a_stream_however_it_is_cut(at: list[int]) -> None:
    text, record = streamed(cut(gzip.compress(WHOLE), at), "gzip")
    assert (text, record.error, record.finish_reason) == ("Yes.", None, "stop")


def test_an_encoding_that_is_named_and_not_there() -> None:
    assert streamed([WHOLE], "none")[0] == "Yes."


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "zstd", "boiler"]), st.integers(0, 200))
def test_no_bytes_raise_what_is_not_the_librarys(data: bytes, encoding: str, at: int) -> None:
    with pytest.raises(openai.APIError):
        streamed(cut(data, [at]), encoding)


@given(st.binary(max_size=60), st.integers(0, 300))
def test_a_stream_that_is_no_utf_8_though_its_events_are(data: bytes, at: int) -> None:
    with pytest.raises(openai.APIError):
        streamed(cut(b": \xff" + data + b"\n\n" + WHOLE, [at]), "identity")
