"""What providers say of their limits."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from nat_dynamo_plugin.http.headers import Headers
from nat_dynamo_plugin.limits.headers import Told, told

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def said(**headers: str) -> dict[str, Told]:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return dict(told(Headers(raw), NOW))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360), ("12ms", 0.012), ("1h2m3s", 3723), ("1.5s", 1.5), ("30", 30), ("0.25", 0.25), ("250us", 0.00025)],
)
def test_openais_durations(text: str, seconds: float) -> None:
    made = said(x_ratelimit_limit_requests="60", x_ratelimit_remaining_requests="59", x_ratelimit_reset_requests=text)
    assert made["requests"][:3] == (60, 59, pytest.approx(seconds))


def test_both_units_apart() -> None:
    made = said(
        x_ratelimit_limit_requests="60",
        x_ratelimit_remaining_requests="59",
        x_ratelimit_reset_requests="1s",
        x_ratelimit_limit_tokens="40000",
        x_ratelimit_remaining_tokens="39000",
        x_ratelimit_reset_tokens="1.5s",
    )
    assert made["tokens"][:3] == (40000, 39000, 1.5) and set(made) == {"requests", "tokens"}


def test_anthropics_times() -> None:
    made = said(
        anthropic_ratelimit_tokens_limit="80000",
        anthropic_ratelimit_tokens_remaining="0",
        anthropic_ratelimit_tokens_reset="2026-01-01T12:00:30Z",
    )
    assert made == {"tokens": Told(80000, 0, 30, 1.0)}


def test_the_drafts_of_the_ietf() -> None:
    assert said(ratelimit_limit="100, 100;w=60", ratelimit_remaining="4", ratelimit_reset="7") == {
        "requests": Told(100, 4, 7, 1.0)
    }
    assert said(ratelimit='"default";r=50;t=30', ratelimit_policy='"default";q=100;w=60') == {
        "requests": Told(100, 50, 30, 1.0)
    }


@pytest.mark.parametrize("reset", ["", "soon", "-1s", "5 s", "2026-99-99"])
def test_what_nobody_understands_says_nothing(reset: str) -> None:
    assert not said(
        x_ratelimit_limit_requests="60", x_ratelimit_remaining_requests="59", x_ratelimit_reset_requests=reset
    )


@pytest.mark.parametrize("limit", ["0", "nan", "inf", "-5", "many"])
def test_a_limit_is_a_number_above_zero(limit: str) -> None:
    assert not said(
        x_ratelimit_limit_requests=limit, x_ratelimit_remaining_requests="5", x_ratelimit_reset_requests="1s"
    )
