"""`breaker:` - what becomes of calls while their server is down."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.config.values import Seconds, number
from nat_dynamo_plugin.outages.breaker import BreakerSettings

_SETTINGS = BreakerSettings()


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
        default=_SETTINGS.failure_rate,
        gt=0,
        le=1,
        description="The share of failed calls within `window` that means down, above 0 to 1 (default 0.5).",
    )
    min_calls: Annotated[int, number()] = Field(
        default=_SETTINGS.min_calls,
        description="Calls within the window below which a server is never taken for down (default 5).",
    )
    window: Seconds = Field(
        default=_SETTINGS.window_s, description="How far back failures count, in seconds (default 10)."
    )
    open_for: Seconds = Field(
        default=_SETTINGS.open_s,
        description="Seconds until a server that is down is tried again (default 2); doubles with each failed try, to "
        "5 unless this is more.",
    )
    probes: Annotated[int, number()] = Field(
        default=_SETTINGS.probes, description="Calls that are let through to try it; all must be answered (default 1)."
    )
