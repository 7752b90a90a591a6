"""Limits and cost of one LLM: what is billed is counted, and only that."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nat_dynamo_plugin import DynamoModelConfig, make_service
from nat_dynamo_plugin.service import Service
from nat_dynamo_plugin.telemetry.record import CallRecord

from .upstream import USAGE, Upstream, body, post

USD = (12 + 3) / 1e6 * 1000.0


def no_answer(_: Any) -> tuple[int, str, bytes]:
    """A 200 that is billed and is an error."""
    return 200, "application/json", json.dumps({"error": {"message": "bad"}, "usage": USAGE}).encode()


def service(upstream: Upstream, records: list[CallRecord], rule: dict[str, Any], **fields: Any) -> Service:
    config = DynamoModelConfig(
        base_url=upstream.base_url,
        model_name="m",
        breaker={"on_outage": "ignore"},
        limits={"rules": [rule], "on_limit": "fail"},
        **fields,
    )
    return make_service(config, emit_record=records.append)


PRICES = {"prices": {"m": {"input": 1000.0, "output": 1000.0}}, "genai_prices": False}


async def test_an_attempt_that_a_limit_refuses_is_no_attempt_on_the_bill(upstream: Upstream) -> None:
    upstream.say, records = no_answer, list[CallRecord]()
    once = {"requests": 1, "per": "day"}
    async with service(upstream, records, once, cost=PRICES, retry={"max_retries": 2}).http_clients() as clients:
        assert (await post(clients, body())).status_code == 429
    (record,) = records
    assert (record.attempts, record.unpriced_attempts, len(upstream.asked)) == (1, 0, 1)
    assert record.cost_usd == pytest.approx(USD)


async def test_answers_that_were_none_use_up_a_budget(upstream: Upstream) -> None:
    upstream.say, records = no_answer, list[CallRecord]()
    budget = {"usd": 1.5 * USD, "per": "day"}
    async with service(upstream, records, budget, cost=PRICES, retry={"max_retries": 0}).http_clients() as clients:
        said = [(await post(clients, body())).status_code for _ in range(3)]
    assert said[0] == 502 and said[-1] == 429 and len(upstream.asked) < 3


async def test_a_retried_call_is_counted_once(upstream: Upstream) -> None:
    upstream.say = lambda asked: (no_answer if len(upstream.asked) == 1 else upstream.plainly)(asked)
    records = list[CallRecord]()
    budget = {"usd": 2.5 * USD, "per": "day"}
    async with service(upstream, records, budget, cost=PRICES, retry={"max_retries": 2}).http_clients() as clients:
        # Two attempts: 2 of 2.5, where counting the first one twice would leave nothing at all.
        assert (await post(clients, body())).status_code == 200
        assert (await post(clients, body())).status_code == 429
    assert records[0].cost_usd == pytest.approx(2 * USD) and len(upstream.asked) == 2


async def test_what_a_limit_holds_back_is_no_time_of_the_gpus(upstream: Upstream) -> None:
    records = list[CallRecord]()
    cost = {"gpu_hour_usd": 1.0, "gpus": 1, "genai_prices": False}
    async with service(upstream, records, {"requests": 1, "per": "day"}, cost=cost).http_clients() as clients:
        assert [(await post(clients, body())).status_code for _ in range(2)] == [200, 429]
    assert records[0].cost_usd and records[1].cost_usd is None
