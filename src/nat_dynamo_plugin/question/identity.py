"""Who makes a call: its question and its chain of reasoning, from one look at what was set and at NAT's context."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from nat.builder.context import ContextState

from nat_dynamo_plugin.question.endings import questions
from nat_dynamo_plugin.question.ids import PrefixTemplate, clean, conversation_prefix, sessions_of
from nat_dynamo_plugin.question.scoped import Entry
from nat_dynamo_plugin.question.scopes import ExplicitId, explicit_id

MAX_AROUND = 16
"""Most surrounding questions that are told of."""

_STATE = ContextState.get()


class CallIdentity(NamedTuple):
    """Who makes a call. All ids are as they travel, the prefix id before it is made fit for a header.

    Attributes:
        prefix_id: the question's id.
        session_id: the reasoning chain's id, at most 256 bytes of printable ASCII.
        parent_session_id: the chain that called this one, or `None` for the first.
        function_path: NAT's function path, root first.
        around: ids of the questions that this one was opened in, innermost first; an id that was not set by somebody,
            but is NAT's conversation or run, has none.
    """

    prefix_id: str
    session_id: str
    parent_session_id: str | None
    function_path: tuple[str, ...]
    around: tuple[str, ...] = ()


def current_identity(template: PrefixTemplate) -> CallIdentity:
    """The identity of a call made now, from here: explicit id, conversation, workflow run, or the client's own id.

    A template that names `{run}` or `{conversation}` shapes the id wherever NAT knows one of them. The end of the
    workflow run that the call is part of ends its question, if nobody opened a scope for it.
    """
    state = _STATE
    entry, run, node = explicit_id(), state.workflow_run_id.get(), state.active_function.get()
    path = tuple(state.function_path_stack.get())
    identity = _identity(
        template, template.client_uuid, entry, run, state.conversation_id.get(), path, node.function_id, node.parent_id
    )
    if run is not None and (entry is None or not entry.is_scope):
        questions.watch(identity.prefix_id)
    return identity


def manual_sensitivity() -> int | None:
    """The level of an active `@latency_sensitive` of NAT's, or `None`: its stack holds a default below all others."""
    stack = _STATE.latency_sensitivity_stack.get()
    return max(stack) if len(stack) > 1 else None


@lru_cache(maxsize=4096)
def _identity(
    template: PrefixTemplate,
    _process: str,  # the template's uuid, which is another one after a fork
    entry: Entry[ExplicitId] | None,
    run: str | None,
    conversation: str | None,
    path: tuple[str, ...],
    invocation: str,
    parent_invocation: str | None,
) -> CallIdentity:
    if entry is not None:
        prefix_id, depth = entry.value
        around = tuple(islice(_around(entry), MAX_AROUND))
        if conversation or run:
            around += (_automatic(template, run, conversation, None),)
    else:
        prefix_id, depth, around = _automatic(template, run, conversation, path[-1] if path else None), 1, ()
    session_id, parent = sessions_of(prefix_id, path, depth, invocation=invocation, parent_invocation=parent_invocation)
    return CallIdentity(prefix_id, session_id, parent, path, around)


def _automatic(template: PrefixTemplate, run: str | None, conversation: str | None, function: str | None) -> str:
    if template.names_context or not (conversation or run):
        return template.render(run=run, conversation=conversation, function=function)
    return conversation_prefix(conversation) if conversation else clean(run or "")


def _around(entry: Entry[ExplicitId]) -> Iterator[str]:
    outer = entry.outer
    while outer is not None:
        yield outer.value.prefix_id
        outer = outer.outer
