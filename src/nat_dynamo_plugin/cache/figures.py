"""What a cache has done, counted since its process began."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from nat_dynamo_plugin.cache.entry import Entry
from nat_dynamo_plugin.telemetry.gauges import Gauge

_HELP = {
    "hits": "Calls answered from the cache, by kind.",
    "misses": "Calls that were not there.",
    "bypassed": "Calls that the cache is not for, by reason.",
    "stores": "Answers that were kept.",
    "not_kept": "Answers that were not kept, by reason.",
    "evictions": "Entries that made room for others.",
    "near_compared": "Answers to almost equal questions that were compared with fresh ones.",
    "shared": "Calls that waited for an equal one.",
    "store_errors": "Entries that could not be read or written.",
    "saved_prompt_tokens": "Prompt tokens of calls answered from the cache.",
    "saved_completion_tokens": "Output tokens of calls answered from the cache.",
    "age_seconds": "Ages of the entries that answered, added up (s).",
}

_BY_KIND = frozenset(_HELP) - {"misses", "stores", "evictions", "shared"}
_LEVELS = {
    "bytes": "Bytes of the entries in memory.",
    "entries": "Entries in memory.",
    "near_error_bound": "Upper bound of the error rate of answers to almost equal questions, 0 to 1 (95 % confidence).",
}


def level(name: str, store: str, value: float) -> Gauge:
    """How much there is at the moment: `bytes`, `entries` or `near_error_bound`."""
    return Gauge(f"cache_{name}", _LEVELS[name], {"store": store}, value)


def described() -> Iterator[Gauge]:
    """All gauges that there can be, without values."""
    for name, text in _HELP.items():
        labels = {"store": "", "kind": ""} if name in _BY_KIND else {"store": ""}
        yield Gauge(f"cache_{name}", text, labels, 0.0, counts=True)
    for name in _LEVELS:
        yield level(name, "", 0.0)


class Figures:
    """Counts; a lost count under threads is no harm."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def count(self, name: str, kind: str = "", amount: float = 1) -> None:
        """Add to a figure."""
        self.counts[name, kind] += amount  # type: ignore[assignment]

    def hit(self, kind: str, entry: Entry) -> None:
        """A call was answered from the cache."""
        counts = self.counts
        counts["hits", kind] += 1
        counts["saved_prompt_tokens", kind] += entry.prompt_tokens or 0
        counts["saved_completion_tokens", kind] += entry.completion_tokens or 0
        counts["age_seconds", kind] += entry.age_s  # type: ignore[assignment]

    def gauges(self, store: str) -> Iterator[Gauge]:
        """The figures for Prometheus."""
        for (name, kind), value in list(self.counts.items()):
            labels = {"store": store, "kind": kind} if kind else {"store": store}
            yield Gauge(f"cache_{name}", _HELP.get(name, name), labels, float(value), counts=True)

    def to_dict(self) -> dict[str, float]:
        """The figures by name, as `hits` or `hits.exact`."""
        return {f"{name}.{kind}" if kind else name: value for (name, kind), value in sorted(self.counts.items())}
