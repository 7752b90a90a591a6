"""Who is asking: the prefix of a question, and the session of one reasoning chain inside it.

A prefix is the identity of one question (or conversation): all its LLM calls share a growing prompt. A session is one
chain of reasoning inside the question: an agent that calls another agent opens a second one, whose prompts have
little in common with the first, and names the first as its parent.
"""

from __future__ import annotations

import hashlib
import string
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from nat.builder.context import Context

MAX_ID_BYTES = 256
"""Longest session id that Dynamo 1.6.0 takes; one byte more is answered with 400."""

PLACEHOLDERS = ("uuid", "run", "conversation", "function")
"""What a `prefix_template` may contain."""

_DIGEST_CHARS = 32


@dataclass(frozen=True, slots=True)
class _Explicit:
    prefix_id: str
    depth: int
    """Length of NAT's function path where the id was set: the chain there bears the id itself."""


_explicit: ContextVar[_Explicit | None] = ContextVar("dynamo_prefix_id", default=None)


class DynamoPrefixContext:
    """The prefix id of the current context, set by a user, an evaluation or a server.

    Values are immutable and live in a `ContextVar`, so asyncio tasks and `asyncio.to_thread` inherit the id of the code
    that started them and can not change it for anybody else.
    """

    @classmethod
    def set(cls, prefix_id: str) -> None:
        """Set the prefix id for the rest of this context. Prefer `scope`, which restores the outer id.

        Raises:
            ValueError: for an empty id.
        """
        _explicit.set(_explicit_here(prefix_id))

    @classmethod
    def clear(cls) -> None:
        """Forget the prefix id of this context."""
        _explicit.set(None)

    @classmethod
    def get(cls) -> str | None:
        """The explicit prefix id of this context, or `None` if nobody set one."""
        explicit = _explicit.get()
        return None if explicit is None else explicit.prefix_id

    @classmethod
    def is_set(cls) -> bool:
        """Whether an explicit prefix id is set."""
        return _explicit.get() is not None

    @classmethod
    @contextmanager
    def scope(cls, prefix_id: str) -> Iterator[None]:
        """Use `prefix_id` for all LLM calls in this block, then restore the outer id. Scopes nest.

        Raises:
            ValueError: for an empty id.
        """
        token = _explicit.set(_explicit_here(prefix_id))
        try:
            yield
        finally:
            _explicit.reset(token)


def _non_empty(prefix_id: str) -> str:
    if not isinstance(prefix_id, str) or not prefix_id.strip():
        raise ValueError(f"prefix_id={prefix_id!r} is not allowed: use a non-empty string")
    return prefix_id


def _explicit_here(prefix_id: str) -> _Explicit:
    return _Explicit(_non_empty(prefix_id), len(Context.get().function_path))


@lru_cache(maxsize=4096)
def wire_id(identifier: str) -> str:
    """An id as it can travel in a header: printable ASCII and at most 256 bytes.

    Other characters are percent-encoded. A longer id keeps its readable head and ends in a SHA-256 digest of the
    whole, so that it is stable across processes and does not collide.
    """
    # A header value must not begin or end with a blank, so blanks are encoded like control characters.
    safe = quote(identifier, safe="!#$&'()*+,/:;=?@[]^_`{|}~<>\"\\-.")
    if len(safe) <= MAX_ID_BYTES:
        return safe
    digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]
    return f"{safe[: MAX_ID_BYTES - _DIGEST_CHARS - 1]}-{digest}"


class PrefixTemplate:
    """A parsed `prefix_template`.

    Args:
        template: text with the placeholders `{uuid}` (made once for each client), `{run}` (NAT's workflow run id),
            `{conversation}` and `{function}` (the innermost NAT function).

    Raises:
        ValueError: for an unknown placeholder, naming the nearest known one, or for a broken template.
    """

    __slots__ = ("_constant", "client_uuid", "names_context", "template")

    def __init__(self, template: str) -> None:
        check_template(template)
        names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        self.template = template
        self.client_uuid = uuid.uuid4().hex
        self.names_context = bool(names & {"run", "conversation"})
        self._constant = template.format(uuid=self.client_uuid) if names <= {"uuid"} else None

    def render(self, *, run: str | None, conversation: str | None, function: str | None) -> str:
        """The prefix id; a placeholder whose value is unknown falls back to the client's uuid."""
        if self._constant is not None:
            return self._constant
        return self.template.format(
            uuid=self.client_uuid,
            run=run or self.client_uuid,
            conversation=conversation or run or self.client_uuid,
            function=function or "root",
        )


def check_template(template: str) -> None:
    """Raise `ValueError` unless `template` is non-empty and has only known placeholders."""
    _non_empty(template)
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ValueError(f"prefix_template={template!r} is not a template: {error}") from None
    for name in fields:
        if name not in PLACEHOLDERS:
            near = get_close_matches(name, PLACEHOLDERS, n=1)
            hint = f"; did you mean {{{near[0]}}}?" if near else ""
            allowed = ", ".join(f"{{{p}}}" for p in PLACEHOLDERS)
            raise ValueError(
                f"prefix_template={template!r} has the unknown placeholder {{{name}}}; allowed are {allowed}{hint}"
            )


class CallIdentity(NamedTuple):
    """Who makes a call.

    Attributes:
        prefix_id: the question's id.
        session_id: the reasoning chain's id, at most 256 bytes of printable ASCII.
        parent_session_id: the chain that called this one, or `None` for the first.
        function_path: NAT's function path, root first.
        in_workflow: whether a NAT workflow run is under way.
    """

    prefix_id: str
    session_id: str
    parent_session_id: str | None
    function_path: tuple[str, ...]
    in_workflow: bool


def sessions_of(prefix_id: str, function_path: Sequence[str], depth: int = 1) -> tuple[str, str | None]:
    """Session id and parent session id of the chain at `function_path` under a prefix.

    The question's main chain bears the prefix id: the workflow itself (a path of one name), or the function in which
    an explicit scope was opened (`depth` names). Every function below it is a chain of its own, named after its
    path; its parent is the function that called it.
    """
    inner = tuple(function_path[max(depth, 1) :])
    if not inner:
        return wire_id(prefix_id), None
    session = wire_id("/".join((prefix_id, *inner)))
    return session, wire_id("/".join((prefix_id, *inner[:-1])))


def current_identity(template: PrefixTemplate) -> CallIdentity:
    """The identity of a call made now, from here: explicit scope, conversation, workflow run, or the client's own id.

    A template that names `{run}` or `{conversation}` shapes the id wherever NAT knows one of them.
    """
    context = Context.get()
    run = context.workflow_run_id
    path = tuple(context.function_path)
    explicit = _explicit.get()
    depth = 1
    if explicit is not None:
        prefix_id, depth = explicit.prefix_id, explicit.depth
    else:
        conversation = context.conversation_id
        known = conversation or run
        if known and not template.names_context:
            prefix_id = known
        else:
            prefix_id = template.render(run=run, conversation=conversation, function=path[-1] if path else None)
    session_id, parent = sessions_of(prefix_id, path, depth)
    return CallIdentity(prefix_id, session_id, parent, path, run is not None)
