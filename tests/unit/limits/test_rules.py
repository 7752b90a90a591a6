"""What a call takes: estimated before, counted after."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.limits.rules import OUTPUT_TOKENS, Estimates, Rule, Window, charges, real_tokens
from nat_dynamo_plugin.telemetry.record import CallRecord


def body(text: str = "x" * 400, **more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text}], **more}).encode()


def answer(prompt: int, completion: int, cached: int | None = None) -> CallRecord:
    return CallRecord(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_before_anything_is_learned_the_most_is_reserved(name: str) -> None:
    estimates = Estimates()
    assert estimates.tokens(body(**{name: 1000})) == pytest.approx(1000 + len(body(**{name: 1000})) / 4, abs=1)
    assert estimates.tokens(body(**{name: 1000, "n": 3})) > 3000
    assert estimates.tokens(body()) == pytest.approx(OUTPUT_TOKENS + len(body()) / 4, abs=1)


def test_a_text_that_looks_like_a_bound_is_none() -> None:
    assert Estimates().tokens(body('"max_tokens": 9000000')) < 1000


def test_an_image_is_not_counted_as_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    tokens = Estimates().tokens(json.dumps({"messages": [{"content": [image]}]}).encode())
    assert 1000 < tokens < 2000


def test_answers_teach() -> None:
    estimates = Estimates()
    sent = body(max_tokens=4000)
    for _ in range(30):
        estimates.learn(answer(len(sent) // 2, 50), len(sent), 300)
    assert estimates.tokens(sent) == pytest.approx(len(sent) / 2 + 50, rel=0.1)
    assert estimates.tokens(body(max_tokens=10)) < estimates.tokens(sent)
    assert estimates.micro_usd == 300
    estimates.learn(CallRecord(), len(sent), None)
    assert estimates.tokens(sent) == pytest.approx(len(sent) / 2 + 50, rel=0.1)


def test_cached_tokens_weigh_less() -> None:
    assert real_tokens(answer(100, 20, 80), 1.0) == 120
    assert real_tokens(answer(100, 20, 80), 0.1) == 48
    assert real_tokens(answer(100, 20, 800), 0.0) == 20
    assert real_tokens(CallRecord(), 0.5) is None


def test_counts_are_apart_by_what_the_rule_says() -> None:
    rules = (Rule("requests", 1, 60), Rule("tokens", 1, 60, ("org", "model")), Rule("usd", 0.5, 60))
    names, amounts = {"org": "o", "model": "m", "key": "k"}, {"requests": 1, "tokens": 7, "usd": None}
    made = charges(rules, names, amounts)  # type: ignore[arg-type]
    assert [(one.name, one.amount) for one in made] == [("", 1), ("o|m", 7), ("", 0)]
    assert rules[2].whole == 500_000


@given(st.integers(0, 100), st.floats(0, 60), st.integers(0, 100), st.floats(60, 120), st.integers(1, 120))
def test_after_the_wait_there_is_room_and_not_long_before(
    before: int, before_s: float, now: int, now_s: float, amount: int
) -> None:
    before = before if before_s else 0
    # Both windows end together: what is left of this one is what is left of the other's memory.
    window = Window(before, now_s - 60 if before else 0.0, now, now_s if now else 0.0, 60.0)
    wait = window.wait_s(amount, 100)
    if amount > 100:
        assert wait == inf
        return
    assert 0 <= wait <= 120

    def later(seconds: float) -> float:
        turn = window.now_s - 60 if window.now_s else inf
        if seconds < turn:
            return window.before * max(0.0, window.before_s - seconds) / 60 + window.now
        return window.now * max(0.0, 60 - (seconds - turn)) / 60

    assert later(wait + 1e-6) + amount < 101
