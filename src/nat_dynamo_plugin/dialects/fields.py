"""What a dialect says: headers, and fields of the body's `nvext` object."""

from __future__ import annotations

from typing import NamedTuple


class WireFields(NamedTuple):
    """Headers and `nvext` fields for one call.

    Attributes:
        headers: names in lower case, and values of printable ASCII.
        agent_hints: members of `nvext.agent_hints`.
        annotations: members of `nvext.annotations`, each `key:value`.
    """

    headers: tuple[tuple[bytes, bytes], ...] = ()
    agent_hints: tuple[tuple[str, int | float | bool], ...] = ()
    annotations: tuple[str, ...] = ()
