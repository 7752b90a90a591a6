"""What `headers:` takes, and what it refuses and why."""

from __future__ import annotations

from typing import Any

import pytest

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.layers.header_rules import HeaderRulesLayer
from nat_dynamo_plugin.service import make_service


def config(**rules: Any) -> DynamoModelConfig:
    return DynamoModelConfig(model_name="m", base_url="http://127.0.0.1:1/v1", headers=rules)


def layer(**rules: Any) -> HeaderRulesLayer | None:
    block = config(**rules).headers
    assert block is not None
    return block.layer()


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("Authorization", "api_key"),
        ("auth*", "would ban authorization"),
        ("*", "can not be banned"),
        ("x-dynamo-session-id", "prefix_template"),
        ("x-*", "would ban x-dynamo-session-id"),
        ("X-Prefix-Id", "prefix_wire"),
        ("x-tenant-id", "cache_salt"),
        ("host", "no message can be read"),
        ("content-type", "no message can be read"),
        ("x team", "no name of a header"),
        ("", "no name of a header"),
    ],
)
def test_what_is_needed_can_not_be_banned(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("*", r"\*")):
        config(ban=[pattern])


def test_what_is_nobodys_can() -> None:
    block = config(ban=["x-stainless-*", "User-Agent", "traceparent"], ban_response=["authorization"]).headers
    assert block is not None and (banned := block.banned()) is not None
    assert banned.without([(b"X-Stainless-OS", b"Linux"), (b"user-agent", b"x"), (b"traceparent", b"y")]) == []
    with pytest.raises(ValueError, match="content-encoding"):
        config(ban_response=["content-*"])


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("authorization", "Bearer x", "api_key"),
        ("Content-Length", "3", "can not be added"),
        ("x a", "y", "no name of a header"),
        ("x-a", "y\nz", "can not travel"),
        ("x-a", "call:no.such.module:f", "can not be imported"),
        ("x-a", "call:math:pi", "is no function"),
    ],
)
@pytest.mark.parametrize("field", ["add", "add_response"])
def test_what_can_not_be_added(field: str, name: str, value: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        config(**{field: {name: value}})


def test_a_value_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM", " blue\n")
    made = layer(add={"x-team": "env:TEAM"})
    assert made is not None and made._add == (("x-team", "blue"),)
    monkeypatch.delenv("TEAM")
    with pytest.raises(ValueError, match="headers: x-team: the environment variable TEAM is not set"):
        make_service(config(add={"x-team": "env:TEAM"}))


def test_a_value_from_a_function() -> None:
    made = layer(add={"x-team": "call:os:getcwd"})
    assert made is not None and callable(made._add[0][1])


def test_no_rule_no_layer() -> None:
    assert layer(ban=["x-a"]) is None and make_service(config(ban=["x-a"])).banned is not None
    assert make_service(DynamoModelConfig(model_name="m")).banned is None
