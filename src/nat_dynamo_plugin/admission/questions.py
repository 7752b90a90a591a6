"""A question as the admission queue knows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nat_dynamo_plugin.admission.prompts import Prompt

UNKNOWN_PROMPT = Prompt()
"""Of a call whose body can not be read."""


@dataclass(slots=True, eq=False)
class Question:
    """A question that waits or is under way.

    Attributes:
        prefix_id: its id.
        prompt: its first one.
        since: when it came.
        calls: how many of its calls wait; once it is in, how many are in flight.
        admitted: whether its turn has come.
        heard: when it was last heard of.
        first_tokens: tokens of its first prompt, once that was answered.
        grown: tokens of its last call's prompt and answer beyond those.
        counted: whether it is in and its tokens are counted: not so one too many, and one that is to be set aside.
        wake: one for each call that waits: called when its turn has come, and when it is the one that has waited
            longest, whose callers look after the time; false if nobody is there to wake.
        order: who is next: the smallest; when it is due, and a number.
    """

    prefix_id: str
    prompt: Prompt
    since: float
    order: tuple[float, int]
    calls: int = 0
    admitted: bool = False
    heard: float = 0.0
    first_tokens: int | None = None
    grown: int = 0
    counted: bool = False
    wake: list[Callable[[], bool]] = field(default_factory=list)
