"""Asks for the scripted answer of a call: by its key on a simulated engine, word by word on one that computes."""

from __future__ import annotations

from collections.abc import Callable

from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.plan.serving import ServingPlan

ANNOTATION = "output_replay_id"
"""Name of the request annotation by which Dynamo's mocker finds an answer (Dynamo 1.6.0)."""


class Replay(Dialect):
    """`nvext.annotations` with the key of the answer that the caller has asked for, if he has.

    Args:
        answer_key: the key, from the context of the call, or `None`. What it raises is for the caller: an engine
            answers a key that it does not know with random tokens and says nothing.
    """

    name = "scripted"
    needs_plan = False
    is_steady = False
    fails_open = False

    def __init__(self, answer_key: Callable[[], str | None]) -> None:
        self._answer_key = answer_key

    def say(self, plan: ServingPlan) -> Said:
        """The key of this call's answer, if there is one."""
        key = self._answer_key()
        return Said() if key is None else Said(members={"nvext": {"annotations": [f"{ANNOTATION}:{key}"]}})


class GuidedChoice(Dialect):
    """`guided_choice` with the answer's text as the only choice, so that a model of any weights says it.

    A top-level member of the body, which Dynamo 1.6.0 hands to vLLM. In `nvext` it is refused with a 400,
    and so is `structured_outputs`.

    Args:
        answer: the text, from the context of the call, or `None`. What it raises is for the caller.
    """

    name = "scripted"
    needs_plan = False
    is_steady = False
    fails_open = False

    def __init__(self, answer: Callable[[], str | None]) -> None:
        self._answer = answer

    def say(self, plan: ServingPlan) -> Said:
        """The text of this call's answer, if there is one."""
        text = self._answer()
        return Said() if text is None else Said(members={"guided_choice": [text]})
