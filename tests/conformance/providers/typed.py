"""Checks JSON against the types of an SDK: every field must be one of theirs, and of their type."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

from typing_extensions import is_typeddict


def problems(value: Any, kind: Any, where: str = "body") -> list[str]:
    """What of a value is not as its type says."""
    origin = get_origin(kind)
    if origin in (Required, NotRequired, Annotated):
        return problems(value, get_args(kind)[0], where)
    if kind is Any or kind is object or (kind is float and isinstance(value, int)):
        return []
    if origin in (Union, types.UnionType):
        found = [problems(value, one, where) for one in get_args(kind)]
        return [] if any(not one for one in found) else min(found, key=len)
    if origin is Literal:
        return [] if value in get_args(kind) else [f"{where}: {value!r} is none of {get_args(kind)}"]
    if is_typeddict(kind):
        return _object(value, kind, where)
    if isinstance(origin, type) and issubclass(origin, dict):
        return [] if isinstance(value, dict) else [f"{where}: {value!r} is no object"]
    if isinstance(origin, type) and issubclass(origin, Iterable):
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        [item, *_] = get_args(kind)
        return [one for n, each in enumerate(value) for one in problems(each, item, f"{where}[{n}]")]
    plain = type(None) if kind is None else kind
    return [] if not isinstance(plain, type) or isinstance(value, plain) else [f"{where}: {value!r} is no {kind}"]


def _object(value: Any, kind: Any, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no object"]
    hints = get_type_hints(kind, include_extras=True)
    found = [f"{where}.{name} is no field of {kind.__name__}" for name in value if name not in hints]
    found += [f"{where}.{name} is missing" for name in kind.__required_keys__ if name not in value]
    for name, given in value.items():
        if name in hints:
            found += problems(given, hints[name], f"{where}.{name}")
    return found
