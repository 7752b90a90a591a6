"""`breaker:` - what becomes of calls while their server is down."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.config.values import Seconds, number


class BreakerConfig(Block):
    """When a server counts as down, and what becomes of calls then."""

    NAME: ClassVar = "breaker"
    FLAT: ClassVar = {"on_outage": "on_outage", "outage_max_wait": "max_wait"}

    on_outage: Literal["wait", "fail", "ignore"] = Field(
        default="wait",
        description="What calls do while their server is down: wait until it is back, fail at once, or ignore it and "
        "go on asking (default wait).",
    )
    max_wait: Seconds = Field(
        default=60.0, description="Longest such wait of a call in seconds, after which it fails (default 60)."
    )
    failure_rate: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="The share of failed calls within `window` that means down, above 0 to 1 (default 0.5).",
    )
    min_calls: Annotated[int, number()] = Field(
        default=5, description="Calls within the window below which a server is never taken for down (default 5)."
    )
    window: Seconds = Field(default=10.0, description="How far back failures count, in seconds (default 10).")
    open_for: Seconds = Field(
        default=2.0,
        description="Seconds until a server that is down is tried again (default 2); doubles with each failed try, to "
        "5 unless this is more.",
    )
    probes: Annotated[int, number()] = Field(
        default=1, description="Calls that are let through to try it; all must be answered (default 1)."
    )
