from __future__ import annotations

from typing import Any

import pytest

from nat_dynamo_plugin.config.cost import CostConfig, cost_layers
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.config.provider_cache import ProviderCacheConfig
from nat_dynamo_plugin.telemetry.record import CallRecord


def config(**fields: Any) -> DynamoModelConfig:
    return DynamoModelConfig(model_name="m", base_url="http://x/v1", **fields)


def test_off_unless_asked_for() -> None:
    assert config().cost is None
    assert cost_layers(None, "http://x") == (None, None)


def test_prices_reach_the_pricing() -> None:
    made = config(
        cost={
            "prices": {"m": {"input": 1, "output": 2, "cache_read": 0.5, "cache_write": 3, "cache_writes": {"1h": 4}}}
        }
    ).cost
    assert made is not None
    used: dict[str, Any] = {"prompt_tokens": 10, "cached_tokens": 4, "completion_tokens": 1}
    record = CallRecord(model="m", cache_write_tokens=3, cache_writes={"1h": 1}, **used)
    assert made.pricing().of(record) == (pytest.approx((3 * 1 + 4 * 0.5 + 2 * 3 + 4 + 2) / 1e6), "prices")


def test_the_table_can_be_off_or_pointed_to_a_model() -> None:
    record = CallRecord(model="mine", prompt_tokens=10, cached_tokens=0, completion_tokens=1, origin="http://x")
    assert CostConfig(genai_prices=False).pricing().of(record) is None
    found = CostConfig(genai_prices={"provider": "openai", "model": "gpt-5"}).pricing().of(record)
    assert found is not None and found[0] == pytest.approx((10 * 1.25 + 10) / 1e6)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"price": {}}, "did you mean prices"),
        ({"prices": {"m": {"inputs": 1, "output": 1}}}, "did you mean input"),
        ({"prices": {"m": {"input": -1, "output": 1}}}, "greater than or equal to 0"),
        ({"prices": {"m": {"output": 1}}}, "Field required"),
        ({"prices": {"m": {"input": float("nan"), "output": 1}}}, "finite"),
        ({"prices": {"m": {"input": 1, "output": 1, "cache_writes": {"2h": 1}}}}, "5m, 30m, 1h, 12h"),
        ({"gpu_hour_usd": 0}, "greater than 0"),
        ({"gpus": 0}, "gpus"),
    ],
)
def test_what_is_refused(wrong: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config(cost=wrong)


def test_gpus_are_the_servers_whoever_calls_it() -> None:
    block = CostConfig(gpu_hour_usd=2, gpus=4)
    [first, second, other] = [cost_layers(block, origin)[1] for origin in ("http://a", "http://a", "http://b")]
    assert first is not None and second is not None and other is not None
    assert first._busy is second._busy is not other._busy


def test_prompt_cache_has_defaults_that_write_no_dearer_entries() -> None:
    options = config().provider_cache.options("m")
    assert (options.model, options.marks, options.ttl) == ("m", "automatic", None)
    with pytest.raises(ValueError, match="ttl"):
        ProviderCacheConfig(ttl="2h")
