"""Secrets that must not reach a file, a log or an error."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr


class Redaction:
    """Takes the secrets of a config, and of the environment, out of texts."""

    def __init__(self, config: Any) -> None:
        self._secrets = sorted(_secrets(config), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text with `***` for each secret."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _secrets(value: Any) -> Iterator[str]:
    """All keys in a config, and those that the environment has for the libraries below."""
    for name, text in os.environ.items():
        if name.endswith(("_API_KEY", "_TOKEN", "_PASSWORD", "_SECRET")) and len(text) > 3:
            yield text
    yield from _secret_values(value)


def _secret_values(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        if len(value.get_secret_value()) > 3:
            yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for _, inner in value:  # extra fields too
            yield from _secret_values(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _secret_values(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secret_values(inner)
