"""The nearest right name, for errors about a wrong one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

_COMPONENT = ("type", "_type")
"""How NAT names a component: the field of its config, and what stands for it in YAML."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the end of an error message, or nothing where no known name is near."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def nearest_or_all(name: str, known: Iterable[str]) -> str:
    """`did you mean X?`, or all known names where none is near."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(names) or 'none'}"


def refuse_unknown_fields(data: Any, fields: Iterable[str], where: str) -> None:
    """Raise `ValueError` for a field that a config has not, naming it, its value and the nearest one.

    Args:
        data: what a user wrote; anything but a mapping is left to others.
        fields: the config's own.
        where: what the config is of, for the message.
    """
    if not isinstance(data, Mapping):
        return
    names = list(fields)
    known = [name for name in names if name not in _COMPONENT]
    allowed = {*known, *_COMPONENT} if "type" in names else set(known)
    for name, value in data.items():
        if name not in allowed:
            raise ValueError(f"{name}={value!r}: {where} has no such field; {nearest_or_all(str(name), known)}")
