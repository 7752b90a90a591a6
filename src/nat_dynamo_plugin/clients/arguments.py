"""Check the arguments of a framework's client against the ones it really takes."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any


def checked_arguments(arguments: Mapping[str, Any], known: frozenset[str], client: str) -> dict[str, Any]:
    """The arguments, if the framework's client takes all of them.

    Raises:
        ValueError: for one it does not take, naming the nearest it does.
    """
    for name, value in arguments.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{name}={value!r}: neither `_type: dynamo` nor {client} has such a field{hint}")
    return dict(arguments)
