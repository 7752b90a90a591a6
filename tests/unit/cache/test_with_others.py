"""What else stands around a call sees an answer out of the cache for what it is."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from nat_dynamo_plugin import org_scope
from nat_dynamo_plugin.telemetry.spans import attributes

from .upstream import Model, Upstream, body, post

STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
COST = {"prices": {"m": {"input": 1.0, "output": 2.0}}, "genai_prices": False}
USD = 12e-6 + 2 * 3e-6


@pytest.mark.parametrize("fields", [{}, STREAMED])
async def test_the_log_says_so(model: Model, upstream: Upstream, caplog: Any, fields: dict[str, Any]) -> None:
    with caplog.at_level(logging.INFO, "nat_dynamo_plugin.calls"):
        async with model.clients(log={"format": "json", "content": True}, cost=COST) as clients:
            for _ in range(2):
                await post(clients, body(**fields))
    sent, hit = (json.loads(one.message) for one in caplog.records if one.name == "nat_dynamo_plugin.calls")
    assert "cache" not in sent and hit["cache"] == "exact"
    assert (sent["cost_usd"], hit["cost_usd"]) == (pytest.approx(USD), 0.0)
    assert "forty two" in sent["answer"] and sent["answer"] == hit["answer"]


async def test_a_span_says_so(model: Model, upstream: Upstream) -> None:
    async with model.clients(cost=COST) as clients:
        for _ in range(2):
            await post(clients, body())
    sent, hit = (attributes(record) for record in model.records)
    assert "nat_dynamo.cache" not in sent and hit["nat_dynamo.cache"] == "exact"
    assert (sent["nat_dynamo.cost_usd"], hit["nat_dynamo.cost_usd"]) == (pytest.approx(USD), 0.0)


async def test_a_limit_is_no_limit_on_hits(model: Model, upstream: Upstream) -> None:
    limits = {"rules": [{"requests": 1, "per": "day", "by": "org"}], "on_limit": "fail"}
    async with model.clients(limits=limits, org={}, cost=COST) as clients:
        for org in ("acme", "other"):
            with org_scope(org):
                assert [(await post(clients, body())).status_code for _ in range(3)] == [200] * 3
                refused = await post(clients, body("Another?"))
                assert refused.status_code == 429
                assert (await post(clients, body())).status_code == 200
    assert len(upstream.asked) == 2
    costs = [record.cost_usd for record in model.records]
    assert costs == [pytest.approx(USD), 0.0, 0.0, None, 0.0] * 2
