"""The nearest right name, for errors about a wrong one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

_NAT_ALLOWS = ("type", "_type")
"""How NAT names a component; every config of one may have it."""


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
    known = [name for name in fields if name not in _NAT_ALLOWS]
    for name, value in data.items():
        if name not in (*known, *_NAT_ALLOWS):
            raise ValueError(f"{name}={value!r}: {where} has no such field; {nearest_or_all(str(name), known)}")
