"""Dialect: how a plan is said to one kind of server, and how that server's usage is read. Pure, a file each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.dialects.usage import Usage, openai_usage
from nat_dynamo_plugin.plan.serving import ServingPlan


class Dialect(ABC):
    """What all dialects have. One of your own needs a `name` and `say`.

    Attributes:
        name: as in `prefix_wire`.
        provider: whose servers speak it, in the words of OpenTelemetry's `gen_ai.provider.name`; `None` for Dynamo's.
        needs_plan: whether it speaks of the plan. One that does not is also used where prefixes are turned off, and is
            given `plan.serving.NO_PLAN` there.
        is_steady: whether one plan is always said in the same words, so that they may be said again from memory.
        fails_open: whether the call goes on without what this dialect says, if `say` raises.
    """

    name: str
    provider: str | None = None
    needs_plan: bool = True
    is_steady: bool = True
    fails_open: bool = True

    @abstractmethod
    def say(self, plan: ServingPlan) -> Said:
        """The plan in this server's words."""

    def read_usage(self, usage: Mapping[str, Any]) -> Usage | None:
        """What the `usage` object of an answer says, or `None` if it is none of this dialect's."""
        return openai_usage(usage)
