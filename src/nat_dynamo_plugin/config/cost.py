"""`cost:` - what calls cost, by the first source that knows."""

from __future__ import annotations

import weakref
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, model_validator

from nat_dynamo_plugin.config.block import Block, Discreet
from nat_dynamo_plugin.config.values import number
from nat_dynamo_plugin.nearest import refuse_unknown_fields

if TYPE_CHECKING:  # imported where calls are made: this module is read by every `nat` command
    from nat_dynamo_plugin.cost.gpu import BusyTime
    from nat_dynamo_plugin.cost.prices import Prices
    from nat_dynamo_plugin.cost.pricing import Pricing
    from nat_dynamo_plugin.layers.cost import AttemptCostLayer, CostLayer

_busy: weakref.WeakValueDictionary[tuple[str, float], BusyTime] = weakref.WeakValueDictionary()
"""By origin and price of an hour: GPUs are one server's, whoever calls it."""

_LIFETIMES = ("5m", "30m", "1h", "12h")


class PricesConfig(Discreet):
    """Prices of a model, in USD for a million tokens."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    input: float = Field(ge=0, allow_inf_nan=False, description="Prompt tokens that were not cached.")
    output: float = Field(ge=0, allow_inf_nan=False, description="Tokens of the answer, its reasoning included.")
    cache_read: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Cached prompt tokens. Without it a call with cached tokens has no cost (default: none).",
    )
    cache_write: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Prompt tokens written to a provider's cache. Without it a call that wrote any has no cost "
        "(default: none).",
    )
    cache_writes: dict[str, float] = Field(
        default_factory=dict,
        description="The same by lifetime, 5m, 30m, 1h or 12h, where it differs (default: as cache_write).",
    )
    reasoning: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Reasoning tokens, if not as output (default: as output)."
    )

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_field(cls, data: Any) -> Any:
        refuse_unknown_fields(data, cls.model_fields, "a model's prices", {})
        return data

    def _settle(self) -> None:
        for lifetime, price in self.cache_writes.items():
            if lifetime not in _LIFETIMES or not 0 <= price < float("inf"):
                raise ValueError(f"cache_writes: {lifetime}: {price!r} is no price of {', '.join(_LIFETIMES)}")

    def prices(self) -> Prices:
        """As the pricing has them."""
        from nat_dynamo_plugin.cost.prices import Prices

        return Prices(**self.model_dump())


class GenaiPricesConfig(Discreet):
    """Where in the table of `genai-prices` a model is looked up."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    provider: str | None = Field(
        default=None, min_length=1, description="The provider there, as openai (default: by the server's URL)."
    )
    model: str | None = Field(default=None, min_length=1, description="The model there (default: the call's).")

    def _settle(self) -> None:
        if find_spec("genai_prices") is None:
            raise ValueError("genai_prices: the package is not installed; install nat-dynamo-plugin[cost]")


class CostConfig(Block):
    """What calls cost: the provider's figure, else `prices`, else `genai_prices`, else `gpu_hour_usd`, else none."""

    NAME: ClassVar = "cost"

    prices: dict[str, PricesConfig] = Field(
        default_factory=dict,
        description="Your prices by model, in USD for a million tokens; * in a name stands for anything, and the first "
        "name that fits counts (default: none).",
    )
    genai_prices: bool | GenaiPricesConfig = Field(
        default=True,
        description="Whether the table of the package genai-prices is asked, if that is installed, or where in it to "
        "look: {provider: openai, model: gpt-5} (default true: by the server's URL and the call's model).",
    )
    gpu_hour_usd: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="What an hour of one GPU of your own costs, in USD; calls share the time in which the server was "
        "busy (default: none).",
    )
    gpus: Annotated[int, number()] = Field(default=1, description="GPUs of the server, for gpu_hour_usd (default 1).")

    def pricing(self) -> Pricing:
        """What tokens cost."""
        from nat_dynamo_plugin.cost.pricing import Pricing

        where = self.genai_prices if isinstance(self.genai_prices, GenaiPricesConfig) else None
        return Pricing(
            {name: one.prices() for name, one in self.prices.items()},
            use_table=self.genai_prices is not False,
            table_provider=None if where is None else where.provider,
            table_model=None if where is None else where.model,
        )


def cost_layers(block: CostConfig | None, origin: str) -> tuple[CostLayer | None, AttemptCostLayer | None]:
    """The layer around the whole call, and the one around each attempt; none if nobody asked for costs."""
    if block is None:
        return None, None
    from nat_dynamo_plugin.cost.gpu import BusyTime
    from nat_dynamo_plugin.layers.cost import AttemptCostLayer, CostLayer

    pricing, busy = block.pricing(), None
    if block.gpu_hour_usd is not None:
        hour = block.gpu_hour_usd * block.gpus
        busy = _busy.get((origin, hour))
        if busy is None:
            busy = _busy.setdefault((origin, hour), BusyTime(hour))
    return CostLayer(pricing), AttemptCostLayer(pricing, busy)
