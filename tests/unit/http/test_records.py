"""What a call's record says of an answer that is no plain one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.service import make_service
from nat_dynamo_plugin.telemetry.record import CallRecord
from nat_dynamo_plugin.transport import DynamoTransport

ANSWER = {"model": "m-2026", "choices": [{"message": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 4}}


class _Body(httpx.SyncByteStream):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        yield from (self._data[:9], self._data[9:])


def record_of(answer: Any, *, url: str = "http://user:hunter2@dynamo:8000/v1/chat/completions") -> CallRecord:
    records: list[CallRecord] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, httpx.Response)
        return answer

    config = DynamoModelConfig(model_name="m", prefix_template=None, max_retries=0)
    transport = DynamoTransport(httpx.MockTransport(handle), make_service(config, emit_record=records.append))
    with httpx.Client(transport=transport) as client:
        try:
            client.post(url, json={"model": "m"})
        except httpx.HTTPError:
            assert isinstance(answer, Exception)
    (record,) = records
    return record


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_compressed_answer_is_read(in_memory: bool) -> None:
    data = gzip.compress(json.dumps(ANSWER).encode())
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    body: dict[str, Any] = {"content": data} if in_memory else {"stream": _Body(data)}
    record = record_of(httpx.Response(200, headers=headers, **body))
    assert (record.model, record.prompt_tokens, record.error) == ("m-2026", 4, None)


def test_who_was_asked_for_what_is_known_of_a_failed_call() -> None:
    record = record_of(httpx.ConnectError("refused"))
    assert (record.request_model, record.origin) == ("m", "http://dynamo:8000")
    assert (record.error, record.error_type, record.failure) == (
        "ConnectError: refused",
        "ConnectError",
        "ConnectError",
    )
    assert "hunter2" not in str(record)


def test_a_200_that_carries_an_error_has_failed() -> None:
    record = record_of(httpx.Response(200, json={"error": {"message": "upstream died"}}))
    assert (record.status, record.error) == (200, "upstream died")
