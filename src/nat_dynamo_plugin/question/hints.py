"""What is expected of the calls of a question: how many, how long the answers, how fast they follow each other.

Hints are data. Where they come from is decided by `resolve_hints` (strongest first: an explicit `DynamoHints` scope,
NAT's `@latency_sensitive`, a prediction, the config); what they lead to is decided in `plan`. What each number counts
is said in `TOTAL_REQUESTS`, `OSL` and `IAT`, and is the same wherever it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from operator import index as whole_number
from typing import Any

from nat_dynamo_plugin.question.scoped import Scoped

TOTAL_REQUESTS = "LLM calls expected of one chain of reasoning (a session) in all"
"""What a total number of requests is. An agent that calls another agent is one chain, and the other is another."""
OSL = "output tokens expected of one call"
"""What an output sequence length is."""
IAT = "time from the end of one answer to the start of the chain's next call"
"""What an inter-arrival time is."""


class PrefixLevel(StrEnum):
    """Level of an output length or of an inter-arrival time, as the documented 1.4 API names it."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"

    __hash__ = str.__hash__  # a level equals its text; Enum's own would run in Python for each call


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
    """What is expected of the chain that a call belongs to.

    Attributes:
        total_requests: LLM calls expected of the chain in all, 1 or more.
        osl: output tokens expected of one call, as a level or a number (1 or more).
        iat: time from the end of one answer to the start of the chain's next call, as a level or ms (1 or more).
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

    def __hash__(self) -> int:
        # On the path of every call, where hashing the levels, which are enums, takes longer than the rest.
        return hash((self.total_requests, self.remaining_calls, self.priority))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeHints:
    """Hints set by a `DynamoHints.scope`; `None` leaves a hint to the weaker sources."""

    total_requests: int | None = None
    osl: PrefixLevel | int | None = None
    iat: PrefixLevel | int | None = None
    priority: int | None = None
    kind: str | None = None
    prompt_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPrediction:
    """What a profile predicts for one call, from NAT's prediction trie.

    Attributes:
        remaining_calls: calls of the chain after this one, 0 or more.
        output_tokens: output tokens of this call.
        interarrival_ms: from the end of its answer to the start of the chain's next call, ms.
        latency_sensitivity: NAT's latency sensitivity, 0 or more.
    """

    remaining_calls: float | None = None
    output_tokens: int | None = None
    interarrival_ms: int | None = None
    latency_sensitivity: float | None = None


_scope: Scoped[ScopeHints] = Scoped("dynamo_hints_scope")

MAX_KIND_CHARS = 256
"""Longest `kind` of a question, and longest name of a prompt."""

I32_MIN, I32_MAX = -(2**31), 2**31 - 1
U32_MAX = 2**32 - 1


def _whole(name: str, value: object, low: int, high: int, allowed: str) -> int:
    try:
        number = None if isinstance(value, bool) else whole_number(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        raise ValueError(f"{name}={value!r} is not allowed: use a whole number {allowed}")
    return number


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
        prompt_version: str | None = None,
    ) -> Iterator[None]:
        """Set hints for the calls in this block; a hint left out keeps its value from the enclosing scope.

        In a generator the block may be left in another task than it was entered in.

        Args:
            total_requests: LLM calls expected of each chain of reasoning in this block, in all; 1 or more.
            osl: output tokens expected of one call, a level or a number.
            iat: time from the end of one answer to the start of the chain's next call, a level or milliseconds.
            priority: i32, higher is served first by a frontend that queues (`--router-queue-threshold`).
            kind: what is known of the question before it is answered, for what is learned of its like (`auto` fields):
                short texts joined by commas, the most telling first, e.g. `turns=3,tools=mail`. Use few different ones.
            prompt_version: name of the prompt, in place of the hash that `prompt_versions: true` takes of it.

        Raises:
            ValueError: for a value out of range or of another type, naming it.
        """
        given: dict[str, Any] = {}
        if total_requests is not None:
            given["total_requests"] = _whole("total_requests", total_requests, 1, U32_MAX, "of 1 or more")
        if osl is not None:
            given["osl"] = parse_level_or_number("osl", osl)
        if iat is not None:
            given["iat"] = parse_level_or_number("iat", iat)
        if priority is not None:
            given["priority"] = _whole("priority", priority, I32_MIN, I32_MAX, f"from {I32_MIN} to {I32_MAX}")
        for name, text in (("kind", kind), ("prompt_version", prompt_version)):
            if text is not None:
                if not isinstance(text, str) or not 1 <= len(text) <= MAX_KIND_CHARS:
                    raise ValueError(f"{name}={text!r} is not allowed: use a text of 1 to {MAX_KIND_CHARS} characters")
                given[name] = text
        outer = DynamoHints.current() or ScopeHints()
        entry, token = _scope.enter(replace(outer, **given))
        try:
            yield
        finally:
            _scope.leave(entry, token)

    @staticmethod
    def current() -> ScopeHints | None:
        """The hints of the innermost scope, or `None` outside any."""
        entry = _scope.get()
        return None if entry is None else entry.value


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
    if prediction is None:
        if scope is None and manual_sensitivity is None:
            return config  # the common case costs nothing
        return _resolved(config, 0, scope, None, manual_sensitivity)  # the same for all calls of a scope
    return _resolved(config, call_index, scope, prediction, manual_sensitivity)


@lru_cache(maxsize=1024)
def _resolved(
    config: PrefixHints,
    call_index: int,
    scope: ScopeHints | None,
    prediction: CallPrediction | None,
    manual_sensitivity: int | None,
) -> PrefixHints:
    changes: dict[str, Any] = {}
    if prediction is not None:
        remaining = prediction.remaining_calls
        if remaining is not None:
            changes["total_requests"] = call_index + 1 + round(remaining)
        changes |= {
            "remaining_calls": remaining,
            "total_is_known": remaining is not None,
            "osl": prediction.output_tokens or config.osl,
            "iat": prediction.interarrival_ms or config.iat,
            "latency_sensitivity": prediction.latency_sensitivity,
        }
    if manual_sensitivity is not None:
        # A person said so: NAT 1.9 gives such calls the same number as a priority.
        changes |= {"latency_sensitivity": float(manual_sensitivity), "priority": manual_sensitivity}
    if scope is not None:
        if scope.total_requests is not None:
            changes |= {"total_requests": scope.total_requests, "total_is_known": True, "remaining_calls": None}
        for name in ("osl", "iat", "priority"):
            value = getattr(scope, name)
            if value is not None:
                changes[name] = value
    return replace(config, **changes)
