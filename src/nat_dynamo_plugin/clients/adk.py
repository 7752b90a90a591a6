"""Google ADK: its `LiteLlm`, with the OpenAI library's client on our async httpx client.

ADK calls models asynchronously only.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import litellm
from google.adk.models.lite_llm import LiteLlm
from nat.builder.framework_enum import LLMFrameworkEnum
from nat.utils.responses_api import validate_no_responses_api

from nat_dynamo_plugin.clients.arguments import chat_parameters, checked_arguments, named_parameters
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.running import service_of

logger = logging.getLogger(__name__)

_OURS = {
    *("model", "messages", "tools", "functions", "function_call", "stream", "stream_options", "thinking"),
    *("timeout", "base_url", "api_base", "api_key", "api_version", "model_list", "deployment_id", "shared_session"),
}


@asynccontextmanager
async def client(config: DynamoModelConfig) -> AsyncIterator[Any]:
    """A `LiteLlm` for this config, closed with the workflow."""
    validate_no_responses_api(config, LLMFrameworkEnum.ADK)
    if config.thinking_system_prompt is not None:
        logger.warning("`thinking` has no effect in Google ADK, as in NAT's own clients; put it into the instruction")
    known = (named_parameters(litellm.completion) | chat_parameters() | {"drop_params"}) - _OURS
    arguments = checked_arguments(config.openai_arguments, known, "ADK's LiteLlm")
    async with service_of(config).http_clients() as http:
        yield LiteLlm(
            http.model_name,
            # Without it LiteLLM guesses the provider from the model's name.
            custom_llm_provider="openai",
            api_base=http.base_url,
            api_key=http.api_key,
            client=http.async_openai(),
            timeout=http.timeout,
            # LiteLLM's own retries, and those it sets on the client given.
            num_retries=0,
            max_retries=0,
            **arguments,
        )
