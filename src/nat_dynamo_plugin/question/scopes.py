"""`DynamoPrefixContext`: the prefix id that a user, an evaluation or a server sets for what is asked from here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from nat.builder.context import ContextState

from nat_dynamo_plugin.question import endings
from nat_dynamo_plugin.question.endings import questions
from nat_dynamo_plugin.question.ids import checked_id
from nat_dynamo_plugin.question.scoped import Entry, Scoped

_STATE = ContextState.get()


class ExplicitId(NamedTuple):
    """An id that somebody set.

    Attributes:
        prefix_id: the question's id.
        depth: length of NAT's function path where the id was set: the chain there bears the id itself.
    """

    prefix_id: str
    depth: int


_explicit: Scoped[ExplicitId] = Scoped("dynamo_prefix_id")


def explicit_id() -> Entry[ExplicitId] | None:
    """The innermost id that was set in this context, with those around it."""
    return _explicit.get()


class DynamoPrefixContext:
    """The prefix id of the current context, set by a user, an evaluation or a server.

    Values are immutable and live in a `ContextVar`, so asyncio tasks and `asyncio.to_thread` inherit the id of the code
    that started them and can not change it for anybody else. What is set here travels as it is given.
    """

    @classmethod
    def set(cls, prefix_id: str) -> None:
        """Set the prefix id for the rest of this context. Prefer `scope`, which restores the outer id.

        The question is over with `clear` or `end`, or with the workflow run that makes calls under this id.

        Raises:
            ValueError: for an empty id.
        """
        _explicit.set(_here(prefix_id))

    @classmethod
    def clear(cls) -> None:
        """Forget the prefix id of this context; its question is over, unless another scope of the same id is open."""
        entry = _explicit.get()
        _explicit.clear()
        if entry is None:
            return
        if entry.is_scope:
            questions.release(entry.value.prefix_id, entry)
        else:
            questions.end(entry.value.prefix_id)

    @classmethod
    def get(cls) -> str | None:
        """The explicit prefix id of this context, or `None` if nobody set one."""
        entry = _explicit.get()
        return None if entry is None else entry.value.prefix_id

    @classmethod
    def is_set(cls) -> bool:
        """Whether an explicit prefix id is set."""
        return _explicit.get() is not None

    @classmethod
    @contextmanager
    def scope(cls, prefix_id: str, *, ends: bool = True) -> Iterator[None]:
        """Use `prefix_id` for all LLM calls in this block, then restore the outer id. Scopes nest.

        In a generator the block may be left in another task than it was entered in.

        Args:
            prefix_id: the question's id.
            ends: whether the question is over with this block (unless another scope of the same id is open): its place
                at the gate is free then, and its calls are counted into what is learned. If not, call `end` later.

        Raises:
            ValueError: for an empty id.
        """
        explicit = _here(prefix_id)
        entry, token = _explicit.enter(explicit)
        questions.hold(explicit.prefix_id, entry)
        try:
            yield
        finally:
            _explicit.leave(entry, token)
            questions.release(explicit.prefix_id, entry, ends=ends)

    @staticmethod
    def held(prefix_id: str) -> AbstractContextManager[None]:
        """Let a question be under way for a block, whatever scopes of its id are opened and left inside; sets nothing.

        Raises:
            ValueError: for an empty id.
        """
        return endings.held(checked_id(prefix_id))

    @staticmethod
    def end(prefix_id: str) -> None:
        """Say that a question is over whose id was `set`, or whose scopes were opened with `ends=False`.

        Raises:
            ValueError: for an empty id.
        """
        questions.end(checked_id(prefix_id))


def _here(prefix_id: str) -> ExplicitId:
    return ExplicitId(checked_id(prefix_id), len(_STATE.function_path_stack.get()))
