"""`context:` - how long a conversation may be before its oldest turns are left out."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.config.values import number
from nat_dynamo_plugin.nearest import hidden

if TYPE_CHECKING:
    from nat_dynamo_plugin.layers.context import ContextLayer


class ContextConfig(Block):
    """Of prompts longer than `max_tokens` the oldest turns are left out, and of what goes on from them too."""

    NAME: ClassVar = "context"

    max_tokens: Annotated[int, number()] = Field(
        description="Most tokens of a prompt, tools included, by an estimate that learns from answers; leave the "
        "answer its room in the model's window.",
    )
    keep: Annotated[int, number()] = Field(
        default=4, description="So many turns at the end always stay, 1 or more (default 4)."
    )
    compact_to: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="What a cut leaves of the turns at most, as a share of the room for them: of max_tokens without "
        "tools, system messages and the user's first; above 0 and below 1 (default 0.5). The less, the rarer are cuts.",
    )
    summary: str | None = Field(
        default=None,
        description="package.module:function that is given the messages cut and gives a text to stand in their place "
        "(default: none stands there).",
    )

    @field_validator("summary")
    @classmethod
    def _is_a_function(cls, value: str | None) -> str | None:
        if value is not None:
            _function(value)
        return value

    def layer(self) -> ContextLayer:
        """The layer."""
        # Not before it is needed: NAT imports configs at its start, whatever they are used for.
        from nat_dynamo_plugin.context.cuts import Window
        from nat_dynamo_plugin.layers.context import ContextLayer

        window = Window(self.max_tokens, self.keep, self.compact_to)
        return ContextLayer(window, None if self.summary is None else _function(self.summary))


def _function(where: str) -> Any:
    shown = hidden(where)
    try:
        found = EntryPoint("summary", where, "context").load()
    except Exception as error:  # whatever a foreign module raises
        raise ValueError(
            f"summary={shown!r} can not be imported ({type(error).__name__}); write package.module:function"
        ) from error
    if not callable(found):
        raise ValueError(f"summary={shown!r} is no function")
    return found
