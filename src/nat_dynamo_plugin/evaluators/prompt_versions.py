"""Calls by version of their prompt, where they have one (`prompt_versions`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from nat_dynamo_plugin.telemetry.record import CallRecord

Counts = dict[str, dict[str, int]]
"""By version: `calls`, `failed`, and of the answered ones that say it `prompt_tokens`, of which `cached_tokens`."""


def by_version(calls: Iterable[CallRecord]) -> Counts:
    """The counts of calls; those of no version are left out."""
    found: Counts = {}
    for call in calls:
        if call.prompt_version is None:
            continue
        told = not call.failed and call.prompt_tokens is not None and call.cached_tokens is not None
        one = {
            "calls": 1,
            "failed": int(call.failed),
            "prompt_tokens": call.prompt_tokens or 0 if told else 0,
            "cached_tokens": call.cached_tokens or 0 if told else 0,
        }
        found = together([found, {call.prompt_version: one}])
    return found


def together(counts: Iterable[Mapping[str, Mapping[str, int]]]) -> Counts:
    """Counts added up."""
    found: dict[str, Counter[str]] = {}
    for each in counts:
        for version, one in each.items():
            found.setdefault(version, Counter()).update(one)
    return {version: dict(one) for version, one in found.items()}


def rows(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
    """A line of a summary for each version, those with the most calls first."""
    lines = []
    for version, one in sorted(counts.items(), key=lambda item: (-item[1].get("calls", 0), item[0])):
        prompt, cached = one.get("prompt_tokens", 0), one.get("cached_tokens", 0)
        share = f", {100 * cached / prompt:.1f} % of {prompt:,} prompt tokens cached" if prompt else ""
        lines.append((f"prompt {version}", f"{one.get('calls', 0):,} calls ({one.get('failed', 0):,} failed){share}"))
    return lines
