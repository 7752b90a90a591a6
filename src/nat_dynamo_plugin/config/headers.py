"""`headers:` - which headers are added to calls and answers, and which never leave or never arrive."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.nearest import is_secret, shown
from nat_dynamo_plugin.secrets import remember

if TYPE_CHECKING:
    from nat_dynamo_plugin.http.banned import Banned
    from nat_dynamo_plugin.layers.header_rules import HeaderRulesLayer, HeaderValue

ENV, CALL = "env:", "call:"

_NAME = re.compile(r"[A-Za-z0-9_!#$%&'+.^`|~-]+")  # a token of RFC 9110, section 5.6.2, but for `*`
_HOLDS_THE_MESSAGE = ("connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding")
_IDENTITY = "it says whose call this is; `prefix_template: null` or `prefix_wire` turn it off"
_TRACE = "`trace` makes it; leave `trace` out to have none of it"
KEPT = {
    "authorization": "it is the key, which `api_key` is for",
    "x-dynamo-session-id": _IDENTITY,
    "x-dynamo-parent-session-id": _IDENTITY,
    "x-dynamo-session-final": _IDENTITY,
    "x-prefix-id": _IDENTITY,
    "x-prefix-total-requests": _IDENTITY,
    "x-prefix-osl": _IDENTITY,
    "x-prefix-iat": _IDENTITY,
    "x-tenant-id": "it keeps KV cache entries apart; leave `cache_salt` and `org` out to have none",
    **dict.fromkeys(_HOLDS_THE_MESSAGE, "no message can be read without it"),
}
"""Headers of requests that can not be banned, and why."""
TRACED = dict.fromkeys(("traceparent", "tracestate", "x-request-id"), _TRACE)
"""The same where `trace` is on."""


class HeadersConfig(Block):
    """Header rules. Names may be in any case; what the caller or the server has set is not replaced."""

    NAME: ClassVar = "headers"

    add: dict[str, str] = Field(
        default_factory=dict,
        description="Headers of each call: a text, env:NAME (read when the LLM is made), or "
        "call:package.module:function, called for each call, where None means no header. It must not block.",
    )
    add_response: dict[str, str] = Field(
        default_factory=dict, description="Headers of each answer that the caller gets, of the same forms."
    )
    ban: list[str] = Field(
        default_factory=list,
        description="Headers that never leave with any request of the LLM's clients, whoever set them; * stands for "
        "any characters (x-stainless-*).",
    )
    ban_response: list[str] = Field(
        default_factory=list, description="Headers of answers that the caller does not get, of the same form."
    )

    @field_validator("add", "add_response")
    @classmethod
    def _can_travel(cls, values: dict[str, str]) -> dict[str, str]:
        for name, value in values.items():
            _check_name(name)
            if name.lower() in (*_HOLDS_THE_MESSAGE, "authorization"):
                raise ValueError(f"{name} can not be added here: {KEPT[name.lower()]}")
            if value.startswith(CALL):
                _callable(name, value)
            elif not value.startswith(ENV):
                _check_value(name, value)
        return values

    @field_validator("ban")
    @classmethod
    def _spares_what_is_needed(cls, patterns: list[str]) -> list[str]:
        _check_patterns(patterns)
        refuse_bans_of(patterns, KEPT)
        return patterns

    @field_validator("ban_response")
    @classmethod
    def _spares_the_message(cls, patterns: list[str]) -> list[str]:
        _check_patterns(patterns)
        refuse_bans_of(patterns, {name: KEPT[name] for name in _HOLDS_THE_MESSAGE})
        return patterns

    def banned(self) -> Banned | None:
        """What must not leave, if anything."""
        if not self.ban:
            return None
        from nat_dynamo_plugin.http.banned import Banned

        return Banned(self.ban)

    def layer(self) -> HeaderRulesLayer | None:
        """The layer for the other rules, if there are any. Raises `ValueError` for a variable that is not set."""
        if not (self.add or self.add_response or self.ban_response):
            return None
        from nat_dynamo_plugin.http.banned import Banned
        from nat_dynamo_plugin.layers.header_rules import HeaderRulesLayer

        return HeaderRulesLayer(
            {name: _value(name, value) for name, value in self.add.items()},
            {name: _value(name, value) for name, value in self.add_response.items()},
            Banned(self.ban_response) if self.ban_response else None,
        )


def refuse_bans_of(patterns: list[str], kept: Mapping[str, str]) -> None:
    """Raise `ValueError` for a pattern that bans one of these headers, saying why it is kept."""
    for pattern in patterns:
        for name, why in kept.items():
            if fnmatchcase(name, pattern.lower()):
                what = name if pattern.lower() == name else f"{pattern} would ban {name}, which"
                raise ValueError(f"headers: {what} can not be banned: {why}")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header: use letters, digits and -")


def _check_patterns(patterns: list[str]) -> None:
    for pattern in patterns:
        _check_name(pattern.replace("*", "x"))


def _check_value(name: str, value: str) -> None:
    from nat_dynamo_plugin.http.headers import raw_header

    try:
        raw_header(value)
    except ValueError:
        raise ValueError(
            f"{shown(name, value)} can not travel in a header: use printable ASCII without blanks around it"
        ) from None


def _callable(name: str, value: str) -> Any:
    where = value.removeprefix(CALL)
    try:
        found = EntryPoint(name, where, "headers").load()
    except Exception as error:  # whatever a foreign module raises
        raise ValueError(
            f"{name}: {where!r} can not be imported: {type(error).__name__}: {error}; write "
            "call:package.module:function"
        ) from error
    if not callable(found):
        raise ValueError(f"{name}: {where!r} is no function")
    return found


def _value(name: str, value: str) -> HeaderValue:
    if value.startswith(CALL):
        made: HeaderValue = _callable(name, value)
        return made
    if not value.startswith(ENV):
        if is_secret(name):
            remember(value)
        return value
    variable = value.removeprefix(ENV)
    text = os.environ.get(variable, "").strip()
    if not text:
        raise ValueError(f"headers: {name}: the environment variable {variable} is not set")
    if is_secret(name) or is_secret(variable):
        remember(text)
    _check_value(name, text)
    return text
