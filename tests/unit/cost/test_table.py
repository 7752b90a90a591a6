from __future__ import annotations

import socket
from typing import Any

import pytest

from nat_dynamo_plugin.cost import table
from nat_dynamo_plugin.cost.prices import Unpriced
from nat_dynamo_plugin.telemetry.record import CallRecord

OPENAI = "https://api.openai.com"


def a_call(model: str, origin: str | None = OPENAI, **fields: Any) -> CallRecord:
    usage: dict[str, Any] = {"prompt_tokens": 10_000, "cached_tokens": 9_000, "completion_tokens": 100}
    return CallRecord(status=200, model=model, origin=origin, started_at=1_764_000_000.0, **{**usage, **fields})


def test_a_cached_prompt_at_openais_price_without_any_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("something asked a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    found = table.priced(a_call("gpt-5"), None, None)
    assert found.usd == pytest.approx((1_000 * 1.25 + 9_000 * 0.125 + 100 * 10) / 1e6)
    assert found.source.startswith("genai-prices ")


def test_a_dated_name_is_the_same_model() -> None:
    assert table.priced(a_call("gpt-5-2025-08-07"), None, None) == table.priced(a_call("gpt-5"), None, None)
    dated = table.priced(a_call("claude-sonnet-4-5-20250929", "https://api.anthropic.com"), None, None)
    assert dated.usd == pytest.approx((1_000 * 3 + 9_000 * 0.3 + 100 * 15) / 1e6)


@pytest.mark.parametrize(
    ("model", "origin"),
    [
        ("gpt-5-ultra", OPENAI),
        ("claude-sonnet-4-5-turbo", "https://api.anthropic.com"),  # the table takes any name that begins like this
        ("gpt-5", "http://127.0.0.1:8000"),  # a server of one's own may serve any name
        ("gpt-5", None),
    ],
)
def test_what_it_does_not_know_has_no_price(model: str, origin: str | None) -> None:
    with pytest.raises(Unpriced):
        table.priced(a_call(model, origin or ""), None, None)


def test_where_to_look_can_be_named() -> None:
    named = table.priced(a_call("my-model", "http://127.0.0.1:8000"), "openai", "gpt-5")
    assert named == table.priced(a_call("gpt-5"), None, None)


def test_writes_are_priced_by_lifetime() -> None:
    origin = "https://api.anthropic.com"
    call = a_call(
        "claude-sonnet-4-5", origin, cache_write_tokens=600, cache_writes={"5m": 500, "1h": 100}, cached_tokens=9_000
    )
    expected = (400 * 3 + 9_000 * 0.3 + 500 * 3.75 + 100 * 6 + 100 * 15) / 1e6
    assert table.priced(call, None, None).usd == pytest.approx(expected)


def test_cached_tokens_that_nobody_counted_have_no_price() -> None:
    with pytest.raises(Unpriced, match="cached"):
        table.priced(a_call("gpt-5", cached_tokens=None), None, None)
