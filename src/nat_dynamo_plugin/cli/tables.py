"""Tables as text."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that lines up, its cells to the right."""
    lines = [list(names), *map(list, rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(names))]
    shown = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    shown.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(shown)
