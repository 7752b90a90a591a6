"""What providers say in headers of their own limits: how much fits in, what is left, and when it is all back.

Families, as their documentation has them: OpenAI, Azure, Groq, Fireworks and xAI `x-ratelimit-{limit,remaining,reset}-
{requests,tokens}` with Go durations (`6m0s`, `12ms`); Anthropic `anthropic-ratelimit-{requests,tokens}-...` with times
of RFC 3339; `ratelimit-{limit,remaining,reset}` in seconds, and `ratelimit` with `ratelimit-policy` (drafts of the
IETF's httpapi group).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from nat_dynamo_plugin.http.headers import Headers, number_in

Unit = Literal["requests", "tokens"]


class Told(NamedTuple):
    """What was said of one unit.

    Attributes:
        limit: how much there is when nothing is taken.
        remaining: how much is left.
        reset_s: seconds until all is back.
        step_s: how exact that is (s).
    """

    limit: float
    remaining: float
    reset_s: float
    step_s: float


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|ns|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_ITEM = re.compile(r';\s*([a-z]+)\s*=\s*"?(\d+)')
_FAMILIES = ("x-ratelimit-{}-{}", "anthropic-ratelimit-{1}-{0}")


def told(headers: Headers, now: datetime | None = None) -> dict[Unit, Told]:
    """What a reply says of limits, by unit; empty where it says nothing."""
    if not any(b"ratelimit" in name for name in headers.names):
        return {}
    found: dict[Unit, Told] = {}
    units: tuple[Unit, Unit] = ("requests", "tokens")
    for unit in units:
        for family in _FAMILIES:
            texts = [headers.get(family.format(what, unit)) for what in ("limit", "remaining", "reset")]
            if (one := _told(texts, now)) is not None:
                found[unit] = one
                break
    if "requests" not in found:
        texts = [headers.get(f"ratelimit-{what}") for what in ("limit", "remaining", "reset")]
        one = _told(texts, now) or _structured(headers)
        if one is not None:
            found["requests"] = one
    return found


def _told(texts: list[str | None], now: datetime | None) -> Told | None:
    limit, remaining = _number(texts[0]), _number(texts[1])
    reset = _reset(texts[2], now)
    if limit is None or remaining is None or reset is None or limit <= 0:
        return None
    return Told(limit, min(remaining, limit), *reset)


def _structured(headers: Headers) -> Told | None:
    values = dict(_ITEM.findall(headers.get("ratelimit") or ""))
    policy = dict(_ITEM.findall(headers.get("ratelimit-policy") or ""))
    if "r" not in values or "t" not in values or "q" not in policy:
        return None
    return Told(float(policy["q"]), float(values["r"]), float(values["t"]), 1.0)


def _number(text: str | None) -> float | None:
    return number_in((text or "").partition(",")[0])  # `100, 100;w=60` names the limit first


def _reset(text: str | None, now: datetime | None) -> tuple[float, float] | None:
    """Seconds until the reset, and how exact they are."""
    if not text:
        return None
    number = _number(text)
    if number is not None:
        return number, 1.0 if number.is_integer() else 0.01
    parts = _DURATION.findall(text)
    if parts and "".join(value + unit for value, unit in parts) == text:
        return sum(float(value) * _SECONDS[unit] for value, unit in parts), 1.0 if parts[-1][1] in "hm" else 0.01
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds()), 0.01 if at.microsecond else 1.0
