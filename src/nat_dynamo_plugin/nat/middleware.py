"""`dynamo_prefix_scope`: a readable prefix id for every question of any workflow, set from YAML."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from nat.builder.builder import Builder
from nat.builder.context import Context
from nat.cli.register_workflow import register_middleware
from nat.data_models.middleware import FunctionMiddlewareBaseConfig
from nat.middleware.function_middleware import FunctionMiddleware
from nat.middleware.middleware import CallNext, CallNextStream, FunctionMiddlewareContext
from pydantic import BaseModel, Field

from nat_dynamo_plugin.question.scopes import DynamoPrefixContext

_HASH_CHARS = 12
_RUN_CHARS = 8


class DynamoPrefixScopeConfig(FunctionMiddlewareBaseConfig, name="dynamo_prefix_scope"):  # type: ignore[call-arg]
    """Gives every call of the function it wraps one prefix: `<label>-<question id or short hash>-<run>`."""

    label: str = Field(default="eval", min_length=1, description="First part of every prefix id.")
    id_fields: list[str] = Field(
        default_factory=lambda: ["id", "question_id", "input_id"],
        description="Fields of the workflow's input that may hold the question's id; the first found is used. "
        "An input that is a JSON object in a string is looked into. Without one the input's hash is used.",
    )


def question_id(value: Any, fields: list[str]) -> str:
    """The id of a question: the first of `fields` its input has, or the first 12 hex digits of the input's SHA-256."""
    data = value
    if isinstance(data, str) and data.lstrip().startswith("{"):
        try:
            data = json.loads(data)
        except ValueError:
            data = value
    for field in fields:
        found = data.get(field) if isinstance(data, Mapping) else getattr(data, field, None)
        if isinstance(found, str | int) and not isinstance(found, bool) and str(found).strip():
            return str(found)
    if isinstance(value, BaseModel):
        text = value.model_dump_json()
    elif isinstance(value, str):
        text = value
    else:
        text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARS]


class DynamoPrefixScope(FunctionMiddleware):
    """Opens a `DynamoPrefixContext.scope` around each call of the wrapped function."""

    def __init__(self, config: DynamoPrefixScopeConfig) -> None:
        super().__init__()
        self._config = config

    def prefix_id(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The prefix id of one call. Repetitions of a question differ by the run: NAT's workflow run id, shortened."""
        value = args[0] if args else dict(kwargs)
        run = Context.get().workflow_run_id
        name = f"{self._config.label}-{question_id(value, self._config.id_fields)}"
        return name if run is None else f"{name}-{run.replace('-', '')[:_RUN_CHARS]}"

    async def function_middleware_invoke(
        self, *args: Any, call_next: CallNext, context: FunctionMiddlewareContext, **kwargs: Any
    ) -> Any:
        """Call the function inside the scope."""
        with DynamoPrefixContext.scope(self.prefix_id(args, kwargs)):
            return await call_next(*args, **kwargs)

    async def function_middleware_stream(
        self, *args: Any, call_next: CallNextStream, context: FunctionMiddlewareContext, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream the function, each step of it inside the scope."""
        prefix_id = self.prefix_id(args, kwargs)
        # The scope must not be open while the consumer runs, for a generator shares its consumer's context.
        with DynamoPrefixContext.held(prefix_id):
            chunks = aiter(call_next(*args, **kwargs))
            try:
                while True:
                    with DynamoPrefixContext.scope(prefix_id):
                        try:
                            chunk = await anext(chunks)
                        except StopAsyncIteration:
                            return
                    yield chunk
            finally:
                if isinstance(chunks, AsyncGenerator):
                    with DynamoPrefixContext.scope(prefix_id):
                        await chunks.aclose()


@register_middleware(config_type=DynamoPrefixScopeConfig)
async def dynamo_prefix_scope(config: DynamoPrefixScopeConfig, _builder: Builder) -> AsyncIterator[DynamoPrefixScope]:
    """Register the middleware."""
    yield DynamoPrefixScope(config)
