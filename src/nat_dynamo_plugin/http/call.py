"""A call and its reply, as far as admission and learning look at them. Stands in for the real module."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nat_dynamo_plugin.plan.serving import ServingPlan
from nat_dynamo_plugin.telemetry.record import CallRecord


class Turn(NamedTuple):
    """Who asks, and what was planned."""

    plan: ServingPlan


class Body:
    """A request's body."""

    def __init__(self, raw: bytes | None) -> None:
        self.raw = raw


class Call:
    """One call of an LLM."""

    def __init__(self, url: str, body: bytes | None) -> None:
        self.url = url
        self.body = Body(body)
        self.record = CallRecord()
        self.turn: Turn | None = None
        self.ends: list[Callable[[CallRecord], None]] = []

    def on_end(self, callback: Callable[[CallRecord], None]) -> None:
        """Have `callback` called once when the call is over."""
        self.ends.append(callback)


class Reply:
    """What a server answered."""
