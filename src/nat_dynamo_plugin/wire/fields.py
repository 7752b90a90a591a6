"""What a dialect says: headers, and fields of the body's `nvext` object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class WireFields:
    """Headers and `nvext` fields for one call.

    Attributes:
        headers: names in lower case, and values of printable ASCII.
        agent_hints: members of `nvext.agent_hints`.
        annotations: members of `nvext.annotations`, each `key:value`.
    """

    headers: tuple[tuple[bytes, bytes], ...] = ()
    agent_hints: tuple[tuple[str, int | float | bool], ...] = ()
    annotations: tuple[str, ...] = ()


def merged_nvext(ours: Mapping[str, Any], callers: Mapping[str, Any]) -> dict[str, Any]:
    """`nvext` of a call whose caller sent some himself: objects are merged, lists joined, and the caller wins.

    An annotation of ours gives way to one of the caller's with the same key (the text before the first colon).
    """
    merged: dict[str, Any] = dict(callers)
    for name, value in ours.items():
        theirs = merged.get(name)
        if name not in merged:
            merged[name] = value
        elif isinstance(value, Mapping) and isinstance(theirs, Mapping):
            merged[name] = {**value, **theirs}
        elif isinstance(value, list) and isinstance(theirs, list):
            taken = {str(item).partition(":")[0] for item in theirs}
            merged[name] = [*theirs, *(item for item in value if str(item).partition(":")[0] not in taken)]
    return merged
