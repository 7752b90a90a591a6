"""`trace:` - which trace calls are part of, and where their spans go."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.config.url import checked_url

if TYPE_CHECKING:
    from nat_dynamo_plugin.layers.trace import TraceLayer


class TraceConfig(Block):
    """Traces of calls. In YAML also just `true`, or the endpoint."""

    NAME: ClassVar = "trace"

    endpoint: str | None = Field(
        default=None,
        description="OTLP over HTTP, as http://127.0.0.1:4318, for an SDK of this plugin's own (extra `trace`); "
        "without it spans go to the tracer provider that the application has set, if any (default: none).",
    )
    return_request_id: bool = Field(
        default=False, description="Whether the caller gets the x-request-id of the last attempt (default false)."
    )
    content: bool = Field(
        default=False, description="Whether spans hold prompts and answers, without known secrets (default false)."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        if data is True:
            return {}
        return {"endpoint": data} if isinstance(data, str) else data

    @field_validator("endpoint")
    @classmethod
    def _is_one(cls, value: str | None) -> str | None:
        return None if value is None else checked_url("trace.endpoint", value)

    def layer(self) -> TraceLayer:
        """The layer. Raises `ValueError` for an endpoint without what sends there."""
        spans = None
        if find_spec("opentelemetry") is not None:
            from nat_dynamo_plugin.telemetry.spans import Spans, provider_of

            try:
                spans = Spans(None if self.endpoint is None else provider_of(self.endpoint))
            except ImportError as error:
                raise ValueError(f"trace.endpoint: {error.name} is not installed; {_INSTALL}") from None
        elif self.endpoint is not None:
            raise ValueError(f"trace.endpoint: OpenTelemetry is not installed; {_INSTALL}")
        from nat_dynamo_plugin.layers.trace import TraceLayer

        return TraceLayer(spans, return_request_id=self.return_request_id, content=self.content)


_INSTALL = "install nat-dynamo-plugin[trace]"
