"""Semantic Kernel: `OpenAIChatCompletion` on our async httpx client. Semantic Kernel calls models asynchronously."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nat.builder.framework_enum import LLMFrameworkEnum
from nat.utils.responses_api import validate_no_responses_api
from openai import AsyncOpenAI
from pydantic import PrivateAttr, create_model
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents.chat_history import ChatHistory

from nat_dynamo_plugin.clients.arguments import checked_arguments
from nat_dynamo_plugin.clients.thinking import in_argument, with_thinking
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.running import service_of

_OURS = {
    *("service_id", "extension_data", "function_choice_behavior", "ai_model_id", "messages", "stream"),
    *("stream_options", "tools", "tool_choice", "functions", "function_call", "structured_json_response"),
}


class DynamoChatCompletion(OpenAIChatCompletion):
    """`OpenAIChatCompletion` with defaults for what a call's execution settings leave open.

    Semantic Kernel takes sampling arguments from the settings of each call only; NAT's own client drops the config's.
    """

    _settings: type[OpenAIChatPromptExecutionSettings] = PrivateAttr(default=OpenAIChatPromptExecutionSettings)

    def __init__(self, model_name: str, async_client: AsyncOpenAI, arguments: dict[str, Any]) -> None:
        """Call `model_name` through `async_client`, with `arguments` where the settings have no others."""
        super().__init__(ai_model_id=model_name, async_client=async_client)
        fields = OpenAIChatPromptExecutionSettings.model_fields
        defaults: dict[str, Any] = {name: (fields[name].annotation, value) for name, value in arguments.items()}
        self._settings = create_model(
            "DynamoChatPromptExecutionSettings", __base__=OpenAIChatPromptExecutionSettings, **defaults
        )

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        """Settings of another class are turned into this one, which has the defaults."""
        return self._settings


def _think(prompt: str, history: ChatHistory) -> ChatHistory:
    system = f"{prompt}\n\n{history.system_message}" if history.system_message else prompt
    return ChatHistory(messages=history.messages, system_message=system)


@asynccontextmanager
async def client(config: DynamoModelConfig) -> AsyncIterator[Any]:
    """An `OpenAIChatCompletion` for this config, closed with the workflow."""
    validate_no_responses_api(config, LLMFrameworkEnum.SEMANTIC_KERNEL)
    known = OpenAIChatPromptExecutionSettings.model_fields.keys() - _OURS
    arguments = checked_arguments(config.openai_arguments, known, "OpenAIChatCompletion")
    async with service_of(config).http_clients() as http:
        llm = DynamoChatCompletion(http.model_name, http.async_openai(), arguments)
        methods = ["get_chat_message_contents", "get_streaming_chat_message_contents"]
        yield with_thinking(llm, config, methods, in_argument("chat_history", _think))
