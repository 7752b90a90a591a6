"""What pages have in common."""

from __future__ import annotations

from importlib.resources import files


def style() -> str:
    """The style sheet: light and dark, colours of series, what is beside pictures."""
    return (files("nat_dynamo_plugin.drawing") / "page.css").read_text(encoding="utf-8")
