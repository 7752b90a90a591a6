"""`api_key:` - where the key is, or several to fall back on: `env:NAME`, `file:/path`, or the key itself."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, SecretStr

from nat_dynamo_plugin.discreet_logs import guard_logs
from nat_dynamo_plugin.secrets import (
    REFERENCES,
    is_secret_text,
    is_secret_variable,
    made_variable,
    remember,
    variable_for,
)

FIELD = "api_key"
DEFAULT = "OPENAI_API_KEY"
"""The API key, where the config names none."""
ALLOWED = "use env:NAME, file:/path, a key, or a list of these"

_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_OTHER_FORM = re.compile(r"(?:\$\{?|os\.environ/|env\.|env://|env:\s*\$?\{?)([A-Za-z_]\w*)\}?", re.IGNORECASE)
_KEY = re.compile(r"[\x21-\x7e]+")


def read_keys(value: Any) -> str | list[str] | None:
    """What a user wrote for the key, with blanks and line ends around it gone; `None` for nothing.

    A key that stands in an environment variable too, as NAT makes one of `${NAME}`, is read as `env:NAME`: so it is in
    no file that is written from the config.

    Raises:
        ValueError: for what is none of the forms, with the one that was probably meant. No key is in the message.
    """
    if isinstance(value, list | tuple):
        keys = [_read(one, f"{FIELD}[{k}]") for k, one in enumerate(value)]
        if not keys:
            raise ValueError(f"{FIELD}=[] is not allowed: {ALLOWED}; leave it out for {DEFAULT}")
        for k, key in enumerate(keys):
            if key in keys[:k]:
                raise ValueError(f"{FIELD}[{k}] is {FIELD}[{keys.index(key)}] again; keep one")
        return keys
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if text is None or (isinstance(text, str) and not text.strip()):
        return None  # what an unset ${VARIABLE} leaves
    return _read(text, FIELD)


def _read(value: Any, place: str) -> str:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        raise ValueError(f"{place} is of type {type(value).__name__}: {ALLOWED}")
    text = text.strip()
    if not text:
        raise ValueError(f"{place} is empty: {ALLOWED}")
    if text.startswith("env:") and _NAME.fullmatch(text[4:].strip()):
        name = text[4:].strip()
        return made_variable(name) or f"env:{name}"  # a key in clear that was written out as such comes back
    if text.startswith("file:") and not text.startswith("file://") and text[5:].strip():
        return f"file:{text[5:].strip()}"
    meant = _meant(text)
    if meant or text.lower().startswith(REFERENCES):
        raise ValueError(f"{place} is no key: {ALLOWED}" + (f"; did you mean {meant}?" if meant else ""))
    if not _KEY.fullmatch(text):
        raise ValueError(
            f"{place} can not travel in a header: a key has letters, digits and signs of ASCII, no blanks; {ALLOWED}"
        )
    remember(text)
    guard_logs()
    names = [name for name, held in os.environ.items() if held.strip() == text and not made_variable(name)]
    names.sort(key=is_secret_variable, reverse=True)
    return f"env:{names[0]}" if names and len(text) >= 8 else text


def _meant(text: str) -> str | None:
    """The form that was probably meant by what looks like a name and not like a key."""
    if found := _OTHER_FORM.fullmatch(text):
        return f"env:{found[1]}"
    if text.startswith("file://"):
        return f"file:{text[7:] or '/path'}"
    if text.lower().startswith(REFERENCES):
        scheme, rest = text.partition(":")[0].lower(), text.partition(":")[2].strip()
        # What is neither a name nor a path may be the key.
        return f"{scheme}:{rest}" if _NAME.fullmatch(rest) or rest.startswith(("/", "~", ".")) else None
    if text in os.environ or (text.isupper() and is_secret_variable(text)):
        near = get_close_matches(text, os.environ, n=1, cutoff=0.9) or [text]
        return f"env:{near[0]}"
    try:
        return f"file:{text}" if text[0] in "/~." and Path(text).expanduser().is_file() else None
    except (OSError, RuntimeError, ValueError):
        return None


def written(value: SecretStr | list[SecretStr] | None) -> str | list[str] | None:
    """The field as it may stand in a file: where the key is; for a key in clear, a variable of this process has it."""
    if isinstance(value, list):
        return [_written(one.get_secret_value()) for one in value]
    return None if value is None else _written(value.get_secret_value())


def _written(source: str) -> str:
    return f"env:{variable_for(source)}" if is_secret_text(source) else source


Keys = Annotated[SecretStr | list[SecretStr] | None, BeforeValidator(read_keys), PlainSerializer(written)]
"""A key, or several, or where they are."""


def sources_of(keys: SecretStr | list[SecretStr] | None) -> list[str]:
    """The sources in order, `env:NAME`, `file:/path` or a key in clear; `env:OPENAI_API_KEY` if none is named."""
    if keys is None:
        return [f"env:{DEFAULT}"] if os.getenv(DEFAULT, "").strip() else []
    return [one.get_secret_value() for one in (keys if isinstance(keys, list) else [keys])]


def secret_of(field: str, text: str) -> str:
    """What a field means that is a secret, or holds one: what `env:NAME` or `file:/path` names, else the text itself.

    Raises:
        ValueError: there is nothing where it names. The message has the field and the name.
    """
    if not text.startswith(("env:", "file:")):
        return text
    from nat_dynamo_plugin.layers.key_sources import source_of

    try:
        return source_of(text).value()
    except ValueError as error:
        raise ValueError(f"{field}={error}") from None
