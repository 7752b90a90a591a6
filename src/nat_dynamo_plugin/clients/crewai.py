"""CrewAI: its `LLM` with the native OpenAI provider, on our sync httpx client.

CrewAI 1.6 calls models synchronously only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from crewai import LLM
from crewai.llms.providers.openai.completion import OpenAICompletion
from nat.builder.framework_enum import LLMFrameworkEnum
from nat.utils.responses_api import validate_no_responses_api

from nat_dynamo_plugin.clients.arguments import chat_parameters, checked_arguments, named_parameters
from nat_dynamo_plugin.clients.thinking import in_argument, in_system_message, with_thinking
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.running import service_of

_OURS = {
    *("model", "api_key", "base_url", "timeout", "max_retries", "client_params", "provider", "interceptor"),
}


def _think(prompt: str, messages: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return in_system_message(
        messages,
        prompt,
        lambda message: message["role"] == "system",
        lambda message: str(message["content"]),
        lambda text: {"role": "system", "content": text},
    )


@asynccontextmanager
async def client(config: DynamoModelConfig) -> AsyncIterator[Any]:
    """CrewAI's `LLM` for this config, closed with the workflow."""
    validate_no_responses_api(config, LLMFrameworkEnum.CREWAI)
    # What `OpenAICompletion` has no parameter for, it passes on to the OpenAI library.
    known = (named_parameters(OpenAICompletion.__init__) | chat_parameters() | {"stop"}) - _OURS
    arguments = checked_arguments(config.openai_arguments, known, "CrewAI's LLM")
    if arguments.get("stream"):
        arguments = {"stream_options": {"include_usage": True}, **arguments}
    async with service_of(config).http_clients() as http:
        llm = LLM(
            model=http.model_name,
            # Without it CrewAI guesses the provider from the model's name, and takes LiteLLM for one with a slash.
            provider="openai",
            api_key=http.api_key,
            base_url=http.base_url,
            max_retries=0,
            # Arguments of the OpenAI library's client.
            client_params={"http_client": http.sync, "timeout": http.timeout},
            **arguments,
        )
        yield with_thinking(llm, config, ["call"], in_argument("messages", _think))
