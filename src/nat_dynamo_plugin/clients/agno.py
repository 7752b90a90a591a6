"""Agno: `OpenAIChat` on our httpx clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any

from agno.models.message import Message
from agno.models.openai import OpenAIChat, OpenAIResponses
from nat.data_models.llm import APITypeEnum

from nat_dynamo_plugin.clients.arguments import checked_arguments
from nat_dynamo_plugin.clients.thinking import in_argument, in_system_message, with_thinking
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.running import service_of

_OURS = {
    *("id", "api_key", "base_url", "timeout", "max_retries", "http_client", "client_params", "client", "async_client"),
    # Agno's own retry layer.
    *("retries", "delay_between_retries", "exponential_backoff"),
}
# Agno calls a system message "developer", which only OpenAI's own models know.
_ROLES = {role: role for role in ("system", "user", "assistant", "tool")} | {"model": "assistant"}


class _KeepsClients:
    """For Agno's models, which forget their clients when they are copied; `Agent(reasoning=True)` copies its model."""

    client: Any
    async_client: Any

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copy = super().__deepcopy__(memo)  # type: ignore[misc]
        copy.client, copy.async_client = self.client, self.async_client
        return copy


class DynamoChat(_KeepsClients, OpenAIChat):
    """`OpenAIChat` whose copies call through the same clients."""


class DynamoResponses(_KeepsClients, OpenAIResponses):
    """`OpenAIResponses` whose copies call through the same clients."""


def _think(prompt: str, messages: list[Message]) -> list[Message]:
    return in_system_message(
        messages,
        prompt,
        lambda message: message.role == "system",
        lambda message: str(message.content),
        lambda text: Message(role="system", content=text),
    )


@asynccontextmanager
async def client(config: DynamoModelConfig) -> AsyncIterator[Any]:
    """An `OpenAIChat`, or `OpenAIResponses` for `api_type: responses`, closed with the workflow."""
    model = DynamoResponses if config.api_type == APITypeEnum.RESPONSES else DynamoChat
    arguments = {"role_map": _ROLES, **config.openai_arguments}
    if model is DynamoResponses and "max_tokens" in arguments:
        arguments["max_output_tokens"] = arguments.pop("max_tokens")
    known = {field.name for field in fields(model) if field.init and not field.name.startswith("_")} - _OURS
    arguments = checked_arguments(arguments, known, "Agno's model")
    async with service_of(config).http_clients() as http:
        llm = model(
            id=http.model_name,
            api_key=http.api_key,
            base_url=http.base_url,
            timeout=config.connection.read_timeout,
            max_retries=0,
            client=http.openai(),
            async_client=http.async_openai(),
            **arguments,
        )
        methods = ["invoke", "invoke_stream", "ainvoke", "ainvoke_stream"]
        yield with_thinking(llm, config, methods, in_argument("messages", _think))
