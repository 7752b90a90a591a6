"""`limits:` - how much may be asked for in a minute or a day, and what becomes of what is too much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator

from nat_dynamo_plugin.config.block import Block, Discreet
from nat_dynamo_plugin.config.keys import secret_of
from nat_dynamo_plugin.config.values import Seconds, number

if TYPE_CHECKING:
    from nat_dynamo_plugin.limits.rules import Rule

WINDOWS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
Window = Literal["second", "minute", "hour", "day"]
Part = Literal["org", "key", "model"]


class LimitRule(Discreet):
    """So many requests, tokens or USD in a window of time."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    requests: Annotated[int | None, number(null=True)] = Field(default=None, description="Requests, retries included.")
    tokens: Annotated[int | None, number(null=True)] = Field(
        default=None, description="Tokens of prompts and answers together."
    )
    usd: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="What calls cost, in USD.")
    per: Window = Field(default="minute", description="second, minute, hour or day (default minute); it slides.")
    by: list[Part] = Field(
        default_factory=list,
        description="What has a count of its own: org, key, model (default: one count for all calls of the server).",
    )

    @field_validator("by", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def _settle(self) -> None:
        given = [name for name in ("requests", "tokens", "usd") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a limit has one of requests, tokens, usd; this one has {' and '.join(given) or 'none'}: make it "
                "a rule each"
            )

    @property
    def rule(self) -> Rule:
        """The rule as it is kept."""
        from nat_dynamo_plugin.limits.rules import Rule

        by = tuple(dict.fromkeys(self.by))
        window = WINDOWS[self.per]
        if self.usd is not None:
            return Rule("usd", self.usd, window, by)
        if self.tokens is not None:
            return Rule("tokens", self.tokens, window, by)
        return Rule("requests", float(self.requests or 0), window, by)


class LimitsConfig(Block):
    """How much may be asked for, and what becomes of what is too much."""

    NAME: ClassVar = "limits"
    FLAT: ClassVar[dict[str, str]] = {}

    rules: list[LimitRule] = Field(
        default_factory=list,
        description="Limits, all of which must have room: `{tokens: 100000, per: minute, by: [org, model]}` "
        "(default: none).",
    )
    on_limit: Literal["wait", "fail"] = Field(
        default="wait",
        description="What a call does for which there is no room: wait for it in the order in which calls were made, "
        "or fail at once with 429 (default wait). A budget in USD is not waited for.",
    )
    max_wait: Seconds = Field(default=60.0, description="Longest such wait of a call in seconds (default 60).")
    cached_weight: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="For what share of a token one counts that came out of the server's cache, 0 to 1 (default 1).",
    )
    pace: bool = Field(
        default=False,
        description="Whether requests are spread by what the provider's answers say of its limits (x-ratelimit-*, "
        "anthropic-ratelimit-*, ratelimit), so that it need not refuse any (default false).",
    )
    redis_url: str | None = Field(
        default=None,
        description="A Redis in which several processes keep their counts together, as redis://host:6379/0, or "
        "env:NAME or file:/path of it (default: each process has its own).",
    )

    @property
    def redis(self) -> str | None:
        """The URL itself.

        Raises:
            ValueError: if it is to be in an environment variable or a file, and is not there.
        """
        return None if self.redis_url is None else secret_of("limits.redis_url", self.redis_url)
