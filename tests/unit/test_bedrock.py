"""The hook of boto3's clients, on streams as Bedrock sends them (application/vnd.amazon.eventstream)."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError, ParamValidationError
from tests.conformance.providers.scripted import Asked, Server, serving

from nat_dynamo_plugin.bedrock import hook
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.telemetry.record import CallRecord

MODEL = "anthropic.claude-sonnet-5-v1:0"
ASK: list[Any] = [{"role": "user", "content": [{"text": "x" * 2000}]}]
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("messageStart", {"role": "assistant"}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Rain."}}),
    ("contentBlockStop", {"contentBlockIndex": 0}),
    ("messageStop", {"stopReason": "end_turn"}),
    (
        "metadata",
        {
            "usage": {"inputTokens": 50, "outputTokens": 10, "totalTokens": 60, "cacheReadInputTokens": 950},
            "metrics": {"latencyMs": 3},
        },
    ),
]


def event(name: str, data: dict[str, Any]) -> bytes:
    headers = b""
    for key, value in ((":message-type", "event"), (":event-type", name), (":content-type", "application/json")):
        headers += bytes([len(key)]) + key.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
    payload = json.dumps(data).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack("!I", crc32(prelude)) + headers + payload
    return message + struct.pack("!I", crc32(message))


def streamed(asked: Asked) -> tuple[int, str, bytes]:
    assert asked.path.endswith("/converse-stream")
    return 200, "application/vnd.amazon.eventstream", b"".join(event(*one) for one in EVENTS)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(streamed) as server:
        yield server


def a_client(url: str, attempts: int = 1) -> tuple[Any, list[CallRecord]]:
    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}),
    )
    records: list[CallRecord] = []
    prices = {"input": 3, "output": 15, "cache_read": 0.3}
    hook(client, DynamoModelConfig(model_name=MODEL, cost={"prices": {"*": prices}}), records.append)
    return client, records


def test_a_stream_is_passed_on_and_read(server: Server) -> None:
    client, records = a_client(server.url)
    answer = client.converse_stream(modelId=MODEL, messages=ASK)
    assert records == []  # it is not over
    assert [next(iter(one)) for one in answer["stream"]] == [name for name, _ in EVENTS]
    [record] = records
    assert (record.streamed, record.finish_reason, record.error) == (True, "end_turn", None)
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (1000, 950, 10)
    assert record.cost_usd == pytest.approx((50 * 3 + 950 * 0.3 + 10 * 15) / 1e6)
    assert record.client_ttft_ms is not None
    assert server.asked[0].body["messages"][0]["content"][-1] == {"cachePoint": {"type": "default"}}


@pytest.mark.parametrize("read", [0, 2])
def test_a_stream_that_is_left_is_told_once(server: Server, read: int) -> None:
    client, records = a_client(server.url)
    stream = client.converse_stream(modelId=MODEL, messages=ASK)["stream"]
    events = iter(stream)
    for _ in range(read):
        next(events)
    stream.close()
    stream.close()
    [record] = records
    assert record.error_type == "left" and record.cost_usd is None


def test_a_refusal_is_in_the_servers_words_with_all_attempts(server: Server) -> None:
    server.answer = lambda asked: (500, "application/json", b'{"message": "no engine"}')
    client, records = a_client(server.url, attempts=2)
    with pytest.raises(client.exceptions.ClientError):
        client.converse_stream(modelId=MODEL, messages=ASK)
    [record] = records
    assert (record.status, record.attempts) == (500, 2)
    assert record.error is not None and "no engine" in record.error
    assert record.cost_usd is None


def test_a_server_that_is_not_there() -> None:
    with serving(streamed) as gone:
        url = gone.url
    client, records = a_client(url)
    with pytest.raises(EndpointConnectionError):
        client.converse(modelId=MODEL, messages=ASK)
    [record] = records
    assert (record.status, record.error_type) == (None, "EndpointConnectionError")


def test_parameters_that_are_none_are_boto3s_to_refuse() -> None:
    client, _ = a_client("http://127.0.0.1:9")
    with pytest.raises(ParamValidationError, match="messages"):
        client.converse(modelId=MODEL, messages="no list")
