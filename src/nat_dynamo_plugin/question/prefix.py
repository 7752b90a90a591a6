"""Who is asking: the prefix of a question, and the session of one reasoning chain inside it.

A prefix is the identity of one question (or conversation): all its LLM calls share a growing prompt. A session is one
chain of reasoning inside the question: an agent that calls another agent opens a second one, whose prompts have
little in common with the first, and names the first as its parent.
"""

from __future__ import annotations

import hashlib
import string
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import quote
from weakref import WeakSet

from nat.builder.context import Context

MAX_ID_BYTES = 256
"""Longest session id that Dynamo 1.6.0 takes; one byte more is answered with 400."""

PLACEHOLDERS = ("uuid", "run", "conversation", "function")
"""What a `prefix_template` may contain."""

_DIGEST_CHARS = 32
_MAX_AROUND = 16


class QuestionListener(Protocol):
    """Wants to know when a question is over."""

    def question_ended(self, prefix_id: str) -> None:
        """The last scope of this prefix id was left. Must not raise and must not block."""


class _Questions:
    """Scopes open by prefix id, and who wants to know when an id's last one is left. Listeners are not kept alive."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._listeners: WeakSet[QuestionListener] = WeakSet()
        self._lock = threading.Lock()

    def listen(self, listener: QuestionListener) -> None:
        with self._lock:
            self._listeners.add(listener)

    def opened(self, prefix_id: str) -> None:
        with self._lock:
            self._open[prefix_id] = self._open.get(prefix_id, 0) + 1

    def closed(self, prefix_id: str, *, ends: bool) -> None:
        with self._lock:
            others = self._open.pop(prefix_id, 1) - 1
            if others:
                self._open[prefix_id] = others
        if ends and not others:
            self.ended(prefix_id)

    def ended(self, prefix_id: str) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.question_ended(prefix_id)


_questions = _Questions()
on_question_end = _questions.listen
"""Tell a `QuestionListener`, as long as it lives, of every question that ends."""


@dataclass(frozen=True, slots=True)
class _Explicit:
    prefix_id: str
    depth: int
    """Length of NAT's function path where the id was set: the chain there bears the id itself."""
    around: tuple[str, ...]
    """The ids that were set around this one, innermost first."""


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
        """Forget the prefix id of this context; its question counts as over."""
        explicit = _explicit.get()
        _explicit.set(None)
        if explicit is not None:
            _questions.ended(explicit.prefix_id)

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
    def scope(cls, prefix_id: str, *, ends: bool = True) -> Iterator[None]:
        """Use `prefix_id` for all LLM calls in this block, then restore the outer id. Scopes nest.

        Args:
            prefix_id: the question's id.
            ends: whether the question is over with this block (unless another scope of the same id is open): its place
                at the gate is free then, and its calls are counted into what is learned. If not, call `end` later.

        Raises:
            ValueError: for an empty id.
        """
        token = _explicit.set(_explicit_here(prefix_id))
        _questions.opened(prefix_id)
        try:
            yield
        finally:
            _explicit.reset(token)
            _questions.closed(prefix_id, ends=ends)

    @staticmethod
    def end(prefix_id: str) -> None:
        """Say that a question is over whose scopes were opened with `ends=False`."""
        _questions.ended(prefix_id)


def _non_empty(prefix_id: str) -> str:
    if not isinstance(prefix_id, str) or not prefix_id.strip():
        raise ValueError(f"prefix_id={prefix_id!r} is not allowed: use a non-empty string")
    return prefix_id


def _explicit_here(prefix_id: str) -> _Explicit:
    outer = _explicit.get()
    around = () if outer is None else (outer.prefix_id, *outer.around)[:_MAX_AROUND]
    return _Explicit(_non_empty(prefix_id), len(Context.get().function_path), around)


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


def surrounding_ids(template: PrefixTemplate) -> tuple[str, ...]:
    """Ids of the questions that the current one was opened in: scopes around its own, and what stands for them all."""
    explicit = _explicit.get()
    if explicit is None:
        return ()
    context = Context.get()
    run, conversation = context.workflow_run_id, context.conversation_id
    known = conversation or run
    if known is None:
        return explicit.around
    if template.names_context:
        known = template.render(run=run, conversation=conversation, function=None)
    return (*explicit.around, known)


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


def current_identity(template: PrefixTemplate, context: Context | None = None) -> CallIdentity:
    """The identity of a call made now, from here: explicit scope, conversation, workflow run, or the client's own id.

    A template that names `{run}` or `{conversation}` shapes the id wherever NAT knows one of them. `context` saves
    looking NAT's context up once more.
    """
    context = context or Context.get()
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
