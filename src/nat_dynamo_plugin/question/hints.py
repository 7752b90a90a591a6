"""What a user expects of a prefix: how many requests, how long the answers, how fast they follow each other.

Hints are data. Where they come from is decided by `resolve_hints` (strongest first: an explicit `DynamoHints` scope,
NAT's `@latency_sensitive`, a prediction, the config); what they lead to is decided in `plan`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from enum import StrEnum


class PrefixLevel(StrEnum):
    """Level of an output length or of an inter-arrival time, as the documented 1.4 API names it."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


OSL_TOKENS: dict[PrefixLevel, int] = {PrefixLevel.LOW: 128, PrefixLevel.MEDIUM: 512, PrefixLevel.HIGH: 2048}
"""Output tokens a level stands for (NAT 1.9's representative values)."""

IAT_MS: dict[PrefixLevel, int] = {PrefixLevel.LOW: 50, PrefixLevel.MEDIUM: 250, PrefixLevel.HIGH: 750}
"""Milliseconds between calls a level stands for (NAT 1.9's representative values)."""

# NAT 1.9 calls its values the midpoints of these ranges; a number is named by the range it falls into.
_OSL_BOUNDS = (256, 1024)
_IAT_BOUNDS = (100, 500)


def _level(value: int, bounds: tuple[int, int]) -> PrefixLevel:
    low, high = bounds
    if value <= low:
        return PrefixLevel.LOW
    return PrefixLevel.MEDIUM if value <= high else PrefixLevel.HIGH


def osl_tokens(value: PrefixLevel | int) -> int:
    """Expected output tokens of a level or a number."""
    return OSL_TOKENS[value] if isinstance(value, PrefixLevel) else value


def osl_level(value: PrefixLevel | int) -> PrefixLevel:
    """Level of an expected output length: up to 256 tokens LOW, up to 1024 MEDIUM, more HIGH."""
    return value if isinstance(value, PrefixLevel) else _level(value, _OSL_BOUNDS)


def iat_ms(value: PrefixLevel | int) -> int:
    """Expected milliseconds between two calls of a level or a number."""
    return IAT_MS[value] if isinstance(value, PrefixLevel) else value


def iat_level(value: PrefixLevel | int) -> PrefixLevel:
    """Level of an inter-arrival time: up to 100 ms LOW, up to 500 ms MEDIUM, more HIGH."""
    return value if isinstance(value, PrefixLevel) else _level(value, _IAT_BOUNDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixHints:
    """What is expected of the prefix that a call belongs to.

    Attributes:
        total_requests: calls the whole chain will make, 1 or more.
        osl: output tokens of this call, as a level or a number (1 or more).
        iat: time until the next call, as a level or milliseconds (1 or more).
        remaining_calls: calls still to come after this one, where a source knows it better than
            `total_requests` minus the calls made so far; 0 or more.
        total_is_known: whether `total_requests` is knowledge about this very chain (a scope, a prediction) rather
            than one constant for every question. Only knowledge may decide what is served first: the same constant
            for all turns "remaining work" into "progress" and makes mean latency worse.
        priority: an explicit priority, higher first, i32.
        latency_sensitivity: NAT's latency sensitivity of the caller, 0 or more.
    """

    total_requests: int | None = None
    osl: PrefixLevel | int | None = None
    iat: PrefixLevel | int | None = None
    remaining_calls: float | None = None
    total_is_known: bool = False
    priority: int | None = None
    latency_sensitivity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeHints:
    """Hints set by a `DynamoHints.scope`; `None` leaves a hint to the weaker sources."""

    total_requests: int | None = None
    osl: PrefixLevel | int | None = None
    iat: PrefixLevel | int | None = None
    priority: int | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPrediction:
    """What a profile predicts for one call, from NAT's prediction trie.

    `remaining_calls` counts calls after this one, `output_tokens` is in tokens, `interarrival_ms` in milliseconds.
    """

    remaining_calls: float | None = None
    output_tokens: int | None = None
    interarrival_ms: int | None = None
    latency_sensitivity: float | None = None


_scope: ContextVar[ScopeHints | None] = ContextVar("dynamo_hints_scope", default=None)

MAX_KIND_CHARS = 256
"""Longest `kind` of a question."""

I32_MIN, I32_MAX = -(2**31), 2**31 - 1
U32_MAX = 2**32 - 1


def _checked_level_or_number(name: str, value: PrefixLevel | str | int | None) -> PrefixLevel | int | None:
    if value is None:
        return None
    return parse_level_or_number(name, value)


def parse_level_or_number(name: str, value: object) -> PrefixLevel | int:
    """A hint given as a level (any case) or as a whole number from 1 to 4294967295.

    Raises:
        ValueError: naming the field, the value and what is allowed.
    """
    if isinstance(value, str):
        try:
            return PrefixLevel(value.strip().upper())
        except ValueError:
            pass
        if value.strip().isdigit():
            value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= U32_MAX:
        return value
    raise ValueError(f"{name}={value!r} is not allowed: use LOW, MEDIUM, HIGH or a whole number of 1 or more")


class DynamoHints:
    """Hints for all calls made inside a `with` block, stronger than the config and than predictions."""

    @staticmethod
    @contextmanager
    def scope(
        *,
        total_requests: int | None = None,
        osl: PrefixLevel | str | int | None = None,
        iat: PrefixLevel | str | int | None = None,
        priority: int | None = None,
        kind: str | None = None,
    ) -> Iterator[None]:
        """Set hints for the calls in this block; a hint left out keeps its value from the enclosing scope.

        Args:
            total_requests: LLM calls this chain will make in all, 1 or more.
            osl: output tokens of a call, a level or a number.
            iat: time between calls, a level or milliseconds.
            priority: i32, higher is served first by a frontend that queues (`--router-queue-threshold`).
            kind: what is known of the question before it is answered, for what is learned of its like (`auto` fields):
                short texts joined by commas, the most telling first, e.g. `turns=3,tools=mail`. Use few different ones.

        Raises:
            ValueError: for a value out of range, naming it.
        """
        if total_requests is not None and (isinstance(total_requests, bool) or total_requests < 1):
            raise ValueError(f"total_requests={total_requests!r} is not allowed: use a whole number of 1 or more")
        if priority is not None and not I32_MIN <= priority <= I32_MAX:
            raise ValueError(f"priority={priority!r} is not allowed: use a whole number from {I32_MIN} to {I32_MAX}")
        if kind is not None and (not isinstance(kind, str) or not 1 <= len(kind) <= MAX_KIND_CHARS):
            raise ValueError(f"kind={kind!r} is not allowed: use a text of 1 to {MAX_KIND_CHARS} characters")
        outer = _scope.get() or ScopeHints()
        given = {
            "total_requests": total_requests,
            "osl": _checked_level_or_number("osl", osl),
            "iat": _checked_level_or_number("iat", iat),
            "priority": priority,
            "kind": kind,
        }
        token = _scope.set(replace(outer, **{k: v for k, v in given.items() if v is not None}))  # type: ignore[arg-type]
        try:
            yield
        finally:
            _scope.reset(token)

    @staticmethod
    def current() -> ScopeHints | None:
        """The hints of the innermost scope, or `None` outside any."""
        return _scope.get()


def resolve_hints(
    *,
    config: PrefixHints,
    call_index: int,
    scope: ScopeHints | None = None,
    prediction: CallPrediction | None = None,
    manual_sensitivity: int | None = None,
) -> PrefixHints:
    """Merge the sources of hints, strongest first: scope, `@latency_sensitive`, prediction, config.

    Args:
        config: the hints of the LLM's config.
        call_index: 0 for the chain's first call.
        scope: the innermost `DynamoHints.scope`.
        prediction: what NAT's prediction trie says of this call.
        manual_sensitivity: the level of an active `@latency_sensitive`, or `None`.
    """
    if scope is None and prediction is None and manual_sensitivity is None:
        return config  # the common case costs nothing
    hints = config
    if prediction is not None:
        remaining = prediction.remaining_calls
        total = hints.total_requests if remaining is None else call_index + 1 + round(remaining)
        hints = replace(
            hints,
            total_requests=total,
            remaining_calls=remaining,
            total_is_known=remaining is not None,
            osl=prediction.output_tokens or hints.osl,
            iat=prediction.interarrival_ms or hints.iat,
            latency_sensitivity=prediction.latency_sensitivity,
        )
    if manual_sensitivity is not None:
        # A person said so: NAT 1.9 gives such calls the same number as a priority.
        hints = replace(hints, latency_sensitivity=float(manual_sensitivity), priority=manual_sensitivity)
    if scope is not None:
        if scope.total_requests is not None:
            hints = replace(hints, total_requests=scope.total_requests, total_is_known=True, remaining_calls=None)
        if scope.osl is not None:
            hints = replace(hints, osl=scope.osl)
        if scope.iat is not None:
            hints = replace(hints, iat=scope.iat)
        if scope.priority is not None:
            hints = replace(hints, priority=scope.priority)
    return hints
