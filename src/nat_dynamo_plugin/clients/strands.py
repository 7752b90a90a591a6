"""Strands: `OpenAIModel`, with the OpenAI library's client on our async httpx client.

Strands calls models asynchronously only; its synchronous calls run an event loop of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nat.builder.framework_enum import LLMFrameworkEnum
from nat.utils.responses_api import validate_no_responses_api
from strands.models.openai import OpenAIModel

from nat_dynamo_plugin.clients.arguments import chat_parameters, checked_arguments
from nat_dynamo_plugin.clients.thinking import Arguments, with_thinking
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.running import service_of


class DynamoModel(OpenAIModel):
    """`OpenAIModel` that leaves `tools` out of a request without tools: Dynamo 1.6.0 refuses an empty list with 400."""

    def format_request(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As in the base class."""
        request = super().format_request(*args, **kwargs)
        return {name: value for name, value in request.items() if name != "tools" or value}


def _think(prompt: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    # `stream(messages, tool_specs, system_prompt)` and `structured_output(output_model, prompt, system_prompt)`.
    given = args[2] if len(args) > 2 else kwargs.get("system_prompt")
    text = f"{prompt}\n\n{given}" if given else prompt
    if len(args) > 2:
        return (*args[:2], text, *args[3:]), kwargs
    return args, {**kwargs, "system_prompt": text}


@asynccontextmanager
async def client(config: DynamoModelConfig) -> AsyncIterator[Any]:
    """An `OpenAIModel` for this config, closed with the workflow."""
    validate_no_responses_api(config, LLMFrameworkEnum.STRANDS)
    arguments = checked_arguments(config.openai_arguments, chat_parameters() | {"stream"}, "Strands' OpenAIModel")
    # Strands streams unless told otherwise, and takes that apart from the parameters of a request.
    stream = arguments.pop("stream", True)
    async with service_of(config).http_clients() as http:
        llm = DynamoModel(client=http.async_openai(), model_id=http.model_name, params=arguments, stream=stream)
        yield with_thinking(llm, config, ["stream", "structured_output"], _think)
