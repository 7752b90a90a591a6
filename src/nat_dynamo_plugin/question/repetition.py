"""Which repetition of a question of an evaluation is under way: it is there to be answered again, not from a cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nat_dynamo_plugin.question.scoped import Scoped

_repetition: Scoped[int] = Scoped("dynamo_repetition")


def current_repetition() -> int:
    """The repetition of this context, from 0; 0 outside evaluations."""
    entry = _repetition.get()
    return 0 if entry is None else entry.value


@contextmanager
def repetition_scope(number: int) -> Iterator[None]:
    """Make all LLM calls in this block for the repetition of this number, from 0."""
    entry, token = _repetition.enter(number)
    try:
        yield
    finally:
        _repetition.leave(entry, token)
