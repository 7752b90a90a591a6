"""`log:` - one line a call in the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.nearest import shown

if TYPE_CHECKING:
    from nat_dynamo_plugin.layers.call_log import CallLogLayer


class LogConfig(Block):
    """One line a call, at INFO, by the logger `nat_dynamo_plugin.calls`. In YAML also just `calls`."""

    NAME: ClassVar = "log"

    calls: bool = Field(default=True, description="Whether there is such a line (default true).")
    format: Literal["text", "json"] = Field(
        default="text", description="name=value pairs (text, the default) or a JSON object (json)."
    )
    content: bool = Field(
        default=False, description="Whether it holds prompt and answer, without known secrets (default false)."
    )
    redact: list[str] = Field(
        default_factory=list,
        description="Regular expressions; what they match in prompts and answers is written as [redacted].",
    )

    @model_validator(mode="before")
    @classmethod
    def _just_calls(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            return data
        if data == "calls":
            return {}
        raise ValueError(f"{shown('log', data)} is not allowed: use calls, or a block")

    @field_validator("redact")
    @classmethod
    def _are_expressions(cls, value: list[str]) -> list[str]:
        from nat_dynamo_plugin.recording.rows import redactor

        redactor(value)
        return value

    def layer(self) -> CallLogLayer | None:
        """The layer, if there is a line to write."""
        if not self.calls:
            return None
        from nat_dynamo_plugin.layers.call_log import CallLogLayer
        from nat_dynamo_plugin.recording.rows import redactor

        return CallLogLayer(as_json=self.format == "json", content=self.content, redact=redactor(self.redact))
