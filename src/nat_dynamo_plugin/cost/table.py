"""Prices out of `genai-prices`, if it is installed: a table inside its wheel, so nothing is asked of any network.

It imports an HTTP library and takes 0.1 s to load, so it is loaded when the first call is priced.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

from nat_dynamo_plugin.cost.prices import Split, Unpriced, split_of
from nat_dynamo_plugin.telemetry.record import CallRecord

_VARIANT = re.compile(r"[-@:.]?(?:\d{4}-?\d{2}-?\d{2}|latest|v\d+(?::\d+)?|\d{3,4})")
"""What may follow a model's name without making it another model: a date, a version, `latest`."""


class Priced(NamedTuple):
    """What a call costs by the table.

    Attributes:
        usd: in USD.
        source: the table, with its version.
    """

    usd: float
    source: str


def is_installed() -> bool:
    """Whether there is a table."""
    return find_spec("genai_prices") is not None


def priced(record: CallRecord, provider: str | None, model: str | None) -> Priced:
    """What a call costs by the table.

    Args:
        record: the call.
        provider: the provider in the table's words (`openai`); `None` to go by the call's origin.
        model: the model there; `None` for the one that answered, or else was asked for.

    Raises:
        Unpriced: for a provider or a model that is not in the table, and for tokens that it has no price for.
    """
    import genai_prices

    split = split_of(record)
    if split.cached is None:
        raise Unpriced("the server does not say how many tokens were cached")
    name = model or record.model or record.request_model or ""
    prices = _prices_of(name, provider, None if provider else record.origin)
    used: dict[str, Any] = {
        "input_tokens": split.uncached + split.cached + sum(split.writes.values()),
        "output_tokens": split.spoken + split.reasoning,
        **_cache(split),
    }
    try:
        calculation = prices.model.calc_price(
            genai_prices.Usage(**used),
            prices.provider,
            genai_request_timestamp=datetime.fromtimestamp(record.started_at or datetime.now(UTC).timestamp(), UTC),
            auto_update_timestamp=None,
        )
    except Exception as error:  # of a foreign library, whose interface may change
        raise Unpriced(f"genai-prices could not price it: {error}") from error
    have = calculation.model_price
    for tokens, names in _needed(split):
        if tokens and all(getattr(have, f"{one}_mtok", None) is None for one in names):
            raise Unpriced(f"genai-prices has no {names[0]} price for {prices.model.id}")
    return Priced(float(calculation.total_price), f"genai-prices {_version()}")


class _Found(NamedTuple):
    provider: Any
    model: Any


@lru_cache(maxsize=512)
def _prices_of(name: str, provider: str | None, origin: str | None) -> _Found:
    from genai_prices.data_snapshot import get_snapshot

    try:
        found = _Found(*get_snapshot().find_provider_model(name, None, provider, origin))
    except LookupError as error:
        raise Unpriced(f"genai-prices: {error}") from error
    if not is_this(name.lower(), found.model):
        # Some of its entries take any name that begins with theirs, so a new model would get an old one's price.
        raise Unpriced(f"genai-prices takes {name!r} for {found.model.id!r}, which may be another model")
    return found


def is_this(name: str, model: Any) -> bool:
    """Whether a model of the table is the one of this name, and not just one whose name begins alike."""
    known = {str(model.id).lower()} | set(_equals(model.match))
    return any(
        name == one or (name.startswith(one) and _VARIANT.fullmatch(name[len(one) :]) is not None) for one in known
    )


def _equals(clause: Any) -> list[str]:
    """The names that a clause of the table gives as a whole, or as the beginning of dated ones."""
    alternatives = getattr(clause, "or_", None)
    if alternatives is not None:
        return [name for one in alternatives for name in _equals(one)]
    found = [getattr(clause, kind, None) for kind in ("equals", "starts_with", "contains")]
    return [name.lower() for name in found if isinstance(name, str)]


def _cache(split: Split) -> dict[str, int]:
    used = {"cache_read_tokens": split.cached or 0}
    if split.writes:
        used["cache_write_tokens"] = sum(split.writes.values())
    for lifetime in ("5m", "1h"):
        if split.writes.get(lifetime):
            used[f"cache_write_{lifetime}_tokens"] = split.writes[lifetime]
    return used


def _needed(split: Split) -> list[tuple[int, tuple[str, ...]]]:
    """Tokens that must have a price of their own, each with the names that it may have."""
    written = [
        (n, (f"cache_write_{ttl}" if ttl in ("5m", "1h") else "cache_write", "cache_write"))
        for ttl, n in split.writes.items()
    ]
    return [(split.cached or 0, ("cache_read",)), *written]


@cache
def _version() -> str:
    return version("genai-prices")
