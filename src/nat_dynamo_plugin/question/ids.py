"""Ids as they travel: of a prefix (one question or conversation), and of the sessions inside it.

All LLM calls of a prefix belong to one question. A session is one chain of reasoning in it, whose prompts grow: an
agent that calls another agent opens a second one, whose prompts have little in common with the first, and names the
first as its parent. Ids that a user sets travel as he gives them; those that we take from NAT's conversation ids, which
may name people, travel hashed.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import string
import uuid
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote

from nat_dynamo_plugin.locks import after_fork
from nat_dynamo_plugin.nearest import did_you_mean
from nat_dynamo_plugin.question.once import warn_once

logger = logging.getLogger(__name__)

MAX_ID_BYTES = 256
"""Longest session id that Dynamo 1.6.0 takes; one byte more is answered with 400."""

PLACEHOLDERS = ("uuid", "run", "conversation", "function")
"""What a `prefix_template` may contain."""

CONVERSATION_KEY = "NAT_DYNAMO_CONVERSATION_KEY"
"""A secret that conversation ids are hashed with, for ids that could be guessed; without it, SHA-256 alone."""

_DIGEST_CHARS = 32
_INVOCATION_CHARS = 8
_TRAVELS = re.compile(rf"[!-$&-~]{{1,{MAX_ID_BYTES}}}")  # printable ASCII but for blanks and the percent sign
_RANDOM_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4")  # other versions begin with the time
_ROOT = "root"  # what NAT calls the invocation that is none


def clean(text: str) -> str:
    """A text that has a UTF-8 form: a lone surrogate is written as its escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def checked_id(prefix_id: object) -> str:
    """A prefix id that somebody gave, `clean`.

    Raises:
        ValueError: if it is no text, or an empty one.
    """
    if not isinstance(prefix_id, str) or not prefix_id.strip():
        raise ValueError(f"prefix_id={prefix_id!r} is not allowed: use a non-empty string")
    return clean(prefix_id)


def wire_id(identifier: str) -> str:
    """An id as it can travel in a header: printable ASCII and at most 256 bytes.

    Other characters are percent-encoded. A longer id keeps its readable head and ends in a SHA-256 digest of the
    whole, so that it is stable across processes and does not collide.
    """
    return identifier if _TRAVELS.fullmatch(identifier) else _encoded(identifier)


@lru_cache(maxsize=4096)
def _encoded(identifier: str) -> str:
    data = identifier.encode("utf-8", "surrogatepass")
    # A header value must not begin or end with a blank, so blanks are encoded like control characters.
    safe = quote(data, safe="!#$&'()*+,/:;=?@[]^_`{|}~<>\"\\-.")
    if len(safe) <= MAX_ID_BYTES:
        return safe
    digest = hashlib.sha256(data).hexdigest()[:_DIGEST_CHARS]
    return f"{safe[: MAX_ID_BYTES - _DIGEST_CHARS - 1]}-{digest}"


@lru_cache(maxsize=4096)
def conversation_prefix(conversation_id: str) -> str:
    """The prefix id of a conversation: `conv-` and 32 hex digits, the same in every process and replica.

    A SHA-256 of the id, or an HMAC of it with the secret in the environment variable `NAT_DYNAMO_CONVERSATION_KEY`.
    """
    text = b"nat-dynamo-conversation:" + conversation_id.encode("utf-8", "surrogatepass")
    key = os.environ.get(CONVERSATION_KEY)
    digest = hmac.new(key.encode("utf-8", "surrogateescape"), text, "sha256") if key else hashlib.sha256(text)
    return f"conv-{digest.hexdigest()[:_DIGEST_CHARS]}"


class PrefixTemplate:
    """A parsed `prefix_template`.

    Args:
        template: text with the placeholders `{uuid}` (made once for each client and process), `{run}` (NAT's workflow
            run id), `{conversation}` and `{function}` (the innermost NAT function).

    Raises:
        ValueError: for an unknown placeholder, naming the nearest known one, or for a broken template.
    """

    def __init__(self, template: str) -> None:
        check_template(template)
        names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        self.template = template
        self.names_context = bool(names & {"run", "conversation"})
        self._is_constant = names <= {"uuid"}
        self.renew()
        after_fork(self, PrefixTemplate.renew)

    def renew(self) -> None:
        """Make the client's uuid; anew after a fork, so that a child's questions are not taken for its parent's."""
        self.client_uuid = uuid.uuid4().hex
        self._constant = self._filled(None, None, None) if self._is_constant else None

    def render(self, *, run: str | None, conversation: str | None, function: str | None) -> str:
        """The prefix id; a placeholder whose value is unknown falls back to the client's uuid."""
        return self._constant or self._filled(run, conversation, function)

    def _filled(self, run: str | None, conversation: str | None, function: str | None) -> str:
        try:
            return checked_id(
                self.template.format(
                    uuid=self.client_uuid,
                    run=run or self.client_uuid,
                    conversation=conversation or run or self.client_uuid,
                    function=function or "root",
                )
            )
        except Exception as error:
            warn_once(logger, ("template", self.template), "prefix_template=%r failed", self.template, error=error)
            return self.client_uuid


def check_template(template: str) -> None:
    """Raise `ValueError` unless `template` is non-empty, has only known placeholders, and can be filled in."""
    if not isinstance(template, str) or not template.strip():
        raise ValueError(f"prefix_template={template!r} is not allowed: use a non-empty string, or null")
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ValueError(f"prefix_template={template!r} is not a template: {error}") from None
    for name in fields:
        if name not in PLACEHOLDERS:
            near = did_you_mean(f"{{{name}}}", [f"{{{known}}}" for known in PLACEHOLDERS])
            allowed = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise ValueError(
                f"prefix_template={template!r} has the unknown placeholder {{{name}}}; allowed are {allowed}{near}"
            )
    try:
        made = template.format(**dict.fromkeys(PLACEHOLDERS, "x"))
        made.encode()
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(f"prefix_template={template!r} can not be filled in with text: {error}") from None
    if not made.strip():
        raise ValueError(f"prefix_template={template!r} makes an empty id")


def sessions_of(
    prefix_id: str,
    function_path: Sequence[str],
    depth: int = 1,
    *,
    invocation: str = _ROOT,
    parent_invocation: str | None = None,
) -> tuple[str, str | None]:
    """Session id and parent session id of the chain at `function_path` under a prefix.

    The question's main chain bears the prefix id: the workflow itself (a path of one name), or the function in which
    an explicit scope was opened (`depth` names). Every invocation of a function below it is a chain of its own, named
    after its path and the first 8 digits of NAT's id of the invocation; its parent is the invocation that called it.
    So parallel runs of one agent can go to different workers. A second run after the first is a new chain too: its
    prompts start anew, and what they have in common with the first's the router finds by its content.

    Args:
        prefix_id: the question's id.
        function_path: NAT's function path, root first.
        depth: names of the path that belong to the main chain, 1 or more.
        invocation: NAT's id of the innermost invocation; `root` if it has none.
        parent_invocation: NAT's id of the invocation that called it.
    """
    inner = tuple(function_path[max(depth, 1) :])
    if not inner:
        return wire_id(prefix_id), None
    session = wire_id("/".join((prefix_id, *inner)) + _mark(invocation))
    if len(inner) == 1:
        return session, wire_id(prefix_id)
    return session, wire_id("/".join((prefix_id, *inner[:-1])) + _mark(parent_invocation))


def _mark(invocation: str | None) -> str:
    if invocation is None or invocation == _ROOT:
        return ""
    if _RANDOM_UUID.match(invocation):
        return f"#{invocation[:_INVOCATION_CHARS]}"
    return f"#{hashlib.sha256(invocation.encode('utf-8', 'surrogatepass')).hexdigest()[:_INVOCATION_CHARS]}"
