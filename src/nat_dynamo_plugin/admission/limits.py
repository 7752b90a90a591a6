"""What an adaptive limit is told, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from nat_dynamo_plugin.telemetry.record import CallRecord


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What is under way at a moment.

    Attributes:
        questions: how many.
        tokens: of their prompts, what they share counted once.
        kept_out: questions that wait or are set aside.
    """

    questions: int
    tokens: float
    kept_out: int = 0


class Limiter(Protocol):
    """An adaptive limit. Told of every call by the gate, one at a time."""

    @property
    def room(self) -> float | None:
        """Tokens that the prompts of questions under way may have; `None` for any number."""

    def on_capacity(self, tokens: int, workers: int) -> None:
        """The cluster's KV caches hold this many tokens, of so many workers."""

    def on_call(self, record: CallRecord, under_way: UnderWay, now: float) -> None:
        """Learn from a finished call.

        Args:
            record: what the server said of it.
            under_way: what was when it finished, the call's question included.
            now: seconds, never going back.
        """
