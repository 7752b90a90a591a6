"""Errors about what a user wrote: the nearest right name, and values without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

_COMPONENT = ("type", "_type")
"""How NAT names a component: the field of its config, and what stands for it in YAML."""

MASK = "***"
"""What is printed where a secret was."""

_SECRET_NAME = re.compile(
    r"api_?key|(access|private|secret|auth)_?(key|token)|passw|passphrase|secret|credential"
    r"|(^|[^a-z])(keys?|tokens?|pwd|auth|authorization|bearer|cookies?)([^a-z]|$)",
    re.IGNORECASE,
)
_SECRET_NAMES = ("api_key", "openai_api_key", "access_token", "auth_token", "password", "secret", "authorization")
_SECRET_TEXT = re.compile(
    r"\b(?:sk|pk|rk|nvapi|hf|gh[opsu]|github_pat|glpat|xox[abprs])[-_][\w-]{6,}|\bAKIA\w{12,}|\bbearer\s+\S+",
    re.IGNORECASE,
)
# Up to the last @, for a password may hold what it should not; the scheme may be missing.
_USER_OF_URL = re.compile(r"(?<=://)\S*@|[^/?#\s@:]+:[^/?#\s@]+@")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the end of an error message, or nothing where no known name is near."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def nearest_or_all(name: str, known: Iterable[str]) -> str:
    """`did you mean X?`, or all known names where none is near."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(names) or 'none'}"


def is_secret(name: str) -> bool:
    """Whether a field of this name holds a secret, by its words (key, token, ...) or nearly so (`api_kye`)."""
    return bool(_SECRET_NAME.search(name) or get_close_matches(name.lower(), _SECRET_NAMES, n=1, cutoff=0.75))


def hidden(value: Any, name: str = "") -> Any:
    """A value as it may be printed: `***` for a secret, in what a mapping or list holds too.

    Secrets are known by their field's name, by the form that well-known keys have, and by their place in a URL. A
    number in a field of tokens (`max_token`) is none.

    Args:
        value: anything.
        name: the field that holds it.
    """
    if isinstance(value, Mapping):
        return {key: hidden(inner, f"{name}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [hidden(inner, name) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    if name and is_secret(name) and not (isinstance(value, int | float) and "token" in name.lower()):
        return MASK
    if isinstance(value, str):
        text = _SECRET_TEXT.sub(MASK, _USER_OF_URL.sub(f"{MASK}@", value))
        return value if text == value else text
    return value


def shown(name: str, value: Any) -> str:
    """`name=value` for a message, without secrets."""
    return f"{name}={hidden(value, name)!r}"


def refuse_unknown_fields(
    data: Any, fields: Iterable[str], where: str, renamed: Mapping[str, str] | None = None
) -> None:
    """Raise `ValueError` for a field that a config has not, naming it, its value and the nearest one.

    Args:
        data: what a user wrote; anything but a mapping is left to others.
        fields: the config's own.
        where: what the config is of, for the message.
        renamed: names that fields have elsewhere.
    """
    if not isinstance(data, Mapping):
        return
    names = list(fields)
    known = [name for name in names if name not in _COMPONENT]
    allowed = {*known, *_COMPONENT} if "type" in names else set(known)
    for name, value in data.items():
        if name not in allowed:
            here = (renamed or {}).get(name, str(name))
            raise ValueError(f"{shown(str(name), value)}: {where} has no such field; {nearest_or_all(here, known)}")
