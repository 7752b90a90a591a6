"""How a report writes its numbers."""

from __future__ import annotations

from collections.abc import Mapping


def value(number: float | None, unit: str) -> str:
    """A number with its unit, or `no data`."""
    if number is None:
        return "no data"
    if unit == "share":
        return f"{100 * number:.1f} %"
    if unit == "ms":
        return f"{number:,.1f} ms"
    if unit == "s":
        return f"{number:,.2f} s"
    return f"{number:.4g} {unit}".rstrip()


def count(number: int, noun: str) -> str:
    """`1 question`, `2 questions`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def kinds(failures: Mapping[str, int]) -> str:
    """`503 2, cut_short 1`, the most frequent first."""
    return ", ".join(f"{kind} {n:,}" for kind, n in sorted(failures.items(), key=lambda one: (-one[1], one[0])))
