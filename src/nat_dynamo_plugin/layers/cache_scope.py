"""Whose answers are whose: what keeps the calls of one org, key or repetition from being answered with another's."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.question.org import current_org, org_digest
from nat_dynamo_plugin.question.repetition import current_repetition

_held: ContextVar[tuple[str | None] | None] = ContextVar("dynamo_cache_answer_key", default=None)
"""The answer key of the call at hand, which can be asked for once a call."""


def take_answer_key(ask: Callable[[], str | None]) -> str | None:
    """The key of a call's scripted answer, for the one who says it to the server; the same that its scope has."""
    held = _held.get()
    if held is None:
        return ask()
    _held.set(None)
    return held[0]


class CallerScope:
    """The scope of calls.

    Args:
        key: the header of the LLM's own key; `None` if it has none.
        answer_key: names a call's scripted answer, on an embedded Dynamo that has a script: it chooses the answer.
        placeholder: what clients send for a key of their own.
    """

    def __init__(
        self, key: Callable[[], bytes] | None, answer_key: Callable[[], str | None] | None, placeholder: str
    ) -> None:
        self._key = key
        self._answer_key = answer_key
        self._placeholder = f"Bearer {placeholder}"

    def of(self, call: Call) -> tuple[str, str]:
        """The scope, and the org's HMAC or nothing. No name and no key is in either."""
        org = current_org()
        digest = "" if org is None else org_digest(org)
        who = f"org {digest}" if org is not None else f"key {self._digest(call)}"
        answer = None
        if self._answer_key is not None:
            answer = self._answer_key()
            _held.set((answer,))
        number = current_repetition()
        return (
            f"{who}{'' if answer is None else f' answer {answer}'}{f' repetition {number}' if number else ''}",
            digest,
        )

    def answered(self) -> None:
        """The call needs no server."""
        if self._answer_key is not None:
            _held.set(None)

    def _digest(self, call: Call) -> str:
        given = call.headers.get("authorization")
        if given in (None, self._placeholder):
            given = None if self._key is None else self._key().decode("latin-1")
        return "" if given is None else org_digest(f"key\0{given}")
