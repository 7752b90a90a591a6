"""`admission:` - how many questions may be under way."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.config.values import Auto, Seconds, number
from nat_dynamo_plugin.nearest import shown


class AdmissionConfig(Block):
    """How many questions may be under way, and how long the others wait."""

    NAME: ClassVar = "admission"
    FLAT: ClassVar = {
        "max_active_prefixes": "max_active_prefixes",
        "prefix_idle": "idle",
        "prefix_max_wait": "max_wait",
        "max_concurrency": "max_concurrency",
    }

    max_active_prefixes: Annotated[int | Auto | None, number(auto=True, null=True)] = Field(
        default=None,
        description="Most questions under way at once, 1 or more; the others wait before their first call, those with "
        "the least expected work for the shortest time. auto: as many as the KV caches hold, where that pays; "
        "null (the default): all at once.",
    )
    idle: Seconds = Field(
        default=30.0,
        description="Seconds without a call (default 30) after which a question gives its place up to one that waits.",
    )
    max_wait: Seconds = Field(
        default=300.0,
        description="Seconds of waiting for a place (default 300) after which the question that has waited longest "
        "goes in as one more than the limit; never more than one at a time.",
    )

    max_concurrency: Annotated[int | Auto | None, number(auto=True, null=True)] = Field(
        default="auto",
        description="Most requests under way at once to a server, 1 or more; further ones wait here, in order. auto "
        "(the default): as many as it takes, learned from what it refuses for overload; null: any number.",
    )

    def _settle(self) -> None:
        for name, flat in (("idle", "prefix_idle"), ("max_wait", "prefix_max_wait")):
            value = getattr(self, name)
            if self.max_active_prefixes is None and value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{shown(name, value)} ({flat}) does nothing without a limit; give max_active_prefixes as well, a "
                    "number or auto"
                )
