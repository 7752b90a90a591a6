"""The `retry` block, and NAT's names for what is in it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.config.retry import RetryConfig, expand_statuses


def config(**fields: Any) -> DynamoModelConfig:
    return DynamoModelConfig(**{"model_name": "m", **fields})


def test_patterns() -> None:
    assert expand_statuses(["5xx"]) == set(range(500, 600))
    assert expand_statuses(["5*"]) == set(range(500, 600))
    assert expand_statuses(["50x", 429, "418"]) == {*range(500, 510), 429, 418}


@pytest.mark.parametrize("bad", ["", "5", "9xx", "fast", 1000, "5xxx"])
def test_a_pattern_that_is_none_is_refused_when_the_config_is_read(bad: str | int) -> None:
    with pytest.raises(ValueError, match="no HTTP status"):
        expand_statuses([bad])
    with pytest.raises(ValidationError, match=r"retry\.on_status\n.*is no HTTP status; .* a pattern like 5xx"):
        config(retry={"on_status": [503, bad]})
    with pytest.raises(ValidationError, match=r"\nretry_on_status_codes\n"):
        config(retry_on_status_codes=[bad])


@pytest.mark.parametrize(
    ("flat", "retries"),
    [
        ({}, 10),
        ({"max_retries": 2}, 2),
        ({"num_retries": 3}, 2),
        ({"num_retries": "1"}, 0),
        ({"num_retries": None}, 10),
        ({"num_retries": 3, "max_retries": 8}, 2),
        ({"do_auto_retry": False}, 0),
        ({"do_auto_retry": "false", "max_retries": 4}, 0),
        ({"do_auto_retry": True, "max_retries": 4}, 4),
    ],
)
def test_nats_three_numbers_are_one(flat: dict[str, Any], retries: int) -> None:
    made = config(**flat)
    assert made.retry.max_retries == retries
    # What NAT's own code reads.
    assert (made.max_retries, made.num_retries, made.do_auto_retry) == (retries, retries + 1, retries > 0)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"max_retries": -1}, "max_retries=-1 is not allowed: use a whole number of 0 or more"),
        ({"max_retries": 1.5}, "max_retries=1.5 is not allowed"),
        ({"num_retries": 0}, "num_retries=0 is not allowed: use a whole number of 1 or more"),
        ({"do_auto_retry": "perhaps"}, "do_auto_retry='perhaps' is not allowed: use true or false"),
        ({"retry": {"max_retry": 1}}, "max_retry=1: `retry` has no such field; did you mean max_retries"),
        ({"retry": {"retry_on_errors": []}}, "did you mean on_errors"),
        ({"retry": {"max_retries": 1}, "num_retries": 2}, "num_retries and retry.max_retries are two names"),
        ({"retry": {"max_retries": 1}, "do_auto_retry": False}, "do_auto_retry and retry.max_retries are two names"),
        ({"retry": {"on_errors": []}, "retry_on_errors": []}, "retry_on_errors and retry.on_errors are two names"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        config(**fields)


def test_what_the_retry_layer_gets() -> None:
    retry = RetryConfig(on_status=["50x"], on_errors=["Steam Pressure", "418", ""])
    assert retry.statuses == {*range(500, 510), 408, 409, 418, 529}
    assert retry.texts == ("steam pressure",)
    every = RetryConfig(on_status=[], on_errors=None)
    assert (every.statuses, every.texts) == (set(range(400, 600)), ())


def test_a_dump_keeps_what_nats_would_lose() -> None:
    before = config(num_retries=3, retry_on_status_codes=["5xx"], retry_on_errors=["steam"])
    after = DynamoModelConfig(**before.model_dump(exclude={"type"}))
    assert after.retry == before.retry == RetryConfig(max_retries=2, on_status=["5xx"], on_errors=["steam"])
    for name in ("max_retries", "num_retries", "retry_on_status_codes", "retry_on_errors", "do_auto_retry"):
        assert getattr(after, name) == getattr(before, name)


def test_what_nat_reads_can_not_be_set_apart_from_the_block() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        config().max_retries = 3
