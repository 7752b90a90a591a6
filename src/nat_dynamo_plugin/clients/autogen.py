"""AutoGen: `OpenAIChatCompletionClient` on our async httpx client. AutoGen calls models asynchronously."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from autogen_core.models import CreateResult, LLMMessage, ModelFamily, ModelInfo, SystemMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from nat.builder.framework_enum import LLMFrameworkEnum
from nat.utils.responses_api import validate_no_responses_api

from nat_dynamo_plugin.clients.arguments import chat_parameters, checked_arguments
from nat_dynamo_plugin.clients.thinking import in_argument, with_thinking
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.running import service_of

_FURTHER = {"model_info", "add_name_prefixes", "include_name_in_message", "organization", "default_headers"}
# AutoGen takes what the OpenAI library's request type names, and of what the library's method adds only `extra_body`.
_NOT_TAKEN = {"n", "extra_headers", "extra_query"}


class DynamoChatCompletionClient(OpenAIChatCompletionClient):
    """`OpenAIChatCompletionClient` that asks for the token usage of streams too, unless a call says otherwise."""

    def create_stream(
        self, messages: Sequence[LLMMessage], *, include_usage: bool | None = None, **kwargs: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        """As in the base class."""
        if include_usage is None and "stream_options" not in kwargs.get("extra_create_args", {}):
            include_usage = True
        return super().create_stream(messages, include_usage=include_usage, **kwargs)


def _think(prompt: str, messages: Sequence[LLMMessage]) -> list[LLMMessage]:
    return [SystemMessage(content=prompt), *messages]


@asynccontextmanager
async def client(config: DynamoModelConfig) -> AsyncIterator[Any]:
    """An `OpenAIChatCompletionClient` for this config, closed with the workflow."""
    validate_no_responses_api(config, LLMFrameworkEnum.AUTOGEN)
    known = (chat_parameters() | _FURTHER) - _NOT_TAKEN
    given = checked_arguments(config.openai_arguments, known, "OpenAIChatCompletionClient")
    # What NAT says of any model.
    info = ModelInfo(
        vision=False,
        function_calling=True,
        json_output=True,
        family=ModelFamily.UNKNOWN,
        structured_output=True,
        multiple_system_messages=True,
    )
    async with service_of(config).http_clients() as http:
        # Not in the type of the arguments, but passed on: all that the OpenAI library's client takes.
        connection: dict[str, Any] = {"http_client": http.asynchronous, "timeout": http.timeout, "max_retries": 0}
        if http.base_url is not None:
            connection["base_url"] = http.base_url
        if http.api_key is not None:
            connection["api_key"] = http.api_key
        llm = DynamoChatCompletionClient(**{"model_info": info, **given}, model=http.model_name, **connection)
        try:
            yield with_thinking(llm, config, ["create", "create_stream"], in_argument("messages", _think))
        finally:
            await llm.close()
