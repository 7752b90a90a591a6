"""LangChain: `ChatOpenAI` on our httpx clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import ConfigurableField
from langchain_openai import ChatOpenAI
from nat.data_models.llm import APITypeEnum

from nat_dynamo_plugin.clients.arguments import checked_arguments
from nat_dynamo_plugin.clients.thinking import in_argument, in_system_message, with_thinking
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.running import service_of

# Arguments that are set here, by their names and their aliases.
_OURS = {
    *("http_client", "http_async_client", "client", "async_client", "root_client", "root_async_client"),
    *("model", "model_name", "base_url", "openai_api_base", "api_key", "openai_api_key", "openai_proxy"),
    *("timeout", "request_timeout", "max_retries", "use_responses_api"),
}


def _known() -> set[str]:
    fields = ChatOpenAI.model_fields
    return {*fields, *(field.alias for field in fields.values() if field.alias)} - _OURS


def _think(prompt: str, messages: Any) -> list[BaseMessage]:
    if isinstance(messages, PromptValue):
        messages = messages.to_messages()
    elif isinstance(messages, str):
        messages = [HumanMessage(content=messages)]
    if not isinstance(messages, Sequence) or not all(isinstance(m, BaseMessage) for m in messages):
        raise ValueError(f"Thinking can not be set on messages of type {type(messages).__name__}")
    return in_system_message(
        list(messages),
        prompt,
        lambda message: isinstance(message, SystemMessage),
        lambda message: str(message.content),
        lambda text: SystemMessage(content=text),
    )


@asynccontextmanager
async def client(config: DynamoModelConfig) -> AsyncIterator[Any]:
    """A `ChatOpenAI` for this config, closed with the workflow."""
    arguments = {"stream_usage": True, **config.openai_arguments}
    if config.api_type == APITypeEnum.RESPONSES:
        arguments = {"use_previous_response_id": True, **arguments}
    arguments = checked_arguments(arguments, _known(), "ChatOpenAI")
    async with service_of(config).http_clients() as http:
        chat = ChatOpenAI(
            model=http.model_name,
            base_url=http.base_url,
            api_key=http.api_key,
            http_client=http.sync,
            http_async_client=http.asynchronous,
            timeout=http.timeout,
            max_retries=0,
            use_responses_api=config.api_type == APITypeEnum.RESPONSES,
            **arguments,
        )
        # NAT's own client lets a call choose another model.
        configurable = chat.configurable_fields(model_name=ConfigurableField(id="model_name"))
        yield with_thinking(
            configurable, config, ["invoke", "ainvoke", "stream", "astream"], in_argument("input", _think)
        )
