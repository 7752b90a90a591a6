"""LlamaIndex: `OpenAILike` on our httpx clients.

NAT builds `OpenAI` for `_type: openai`, which refuses every model name that is not OpenAI's. `OpenAILike` is the
framework's own subclass of it for other servers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses  # type: ignore[import-untyped]
from nat.data_models.llm import APITypeEnum

from nat_dynamo_plugin.clients.arguments import checked_arguments
from nat_dynamo_plugin.clients.thinking import in_argument, in_system_message, with_thinking
from nat_dynamo_plugin.config.local import DEFAULT_CONTEXT_LENGTH
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.running import service_of

_OURS = {
    *("model", "api_base", "api_key", "api_version", "timeout", "max_retries", "reuse_client"),
    *("callback_manager", "messages_to_prompt", "completion_to_prompt", "output_parser"),
}


def _think(prompt: str, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    return in_system_message(
        list(messages),
        prompt,
        lambda message: message.role == MessageRole.SYSTEM,
        lambda message: str(message.content),
        lambda text: ChatMessage(role=MessageRole.SYSTEM, content=text),
    )


def _arguments(config: DynamoModelConfig, model: type[OpenAILike] | type[OpenAILikeResponses]) -> dict[str, Any]:
    given = config.openai_arguments
    responses = issubclass(model, OpenAILikeResponses)
    if responses and "max_tokens" in given:
        given["max_output_tokens"] = given.pop("max_tokens")
    # What the class has no field for goes into `additional_kwargs`, its place for further request fields.
    further = {} if responses else {"stream_options": {"include_usage": True}}
    further |= {name: given.pop(name) for name in ("seed", "top_p") if name in given and name not in model.model_fields}
    given["additional_kwargs"] = {**further, **given.get("additional_kwargs", {})}
    # LlamaIndex cuts conversations to the context window, which it can not know of a served model.
    window = DEFAULT_CONTEXT_LENGTH if config.local is None else config.local.context_length
    defaults = {"context_window": window, "is_function_calling_model": True}
    if not responses:
        defaults["is_chat_model"] = True
    return checked_arguments({**defaults, **given}, model.model_fields.keys() - _OURS, model.__name__)


@asynccontextmanager
async def client(config: DynamoModelConfig) -> AsyncIterator[Any]:
    """An `OpenAILike`, or `OpenAILikeResponses` for `api_type: responses`, closed with the workflow."""
    model = OpenAILikeResponses if config.api_type == APITypeEnum.RESPONSES else OpenAILike
    arguments = _arguments(config, model)
    async with service_of(config).http_clients() as http:
        llm = model(
            model=http.model_name,
            api_base=http.base_url,
            api_key=http.api_key,
            openai_client=http.openai(),
            async_openai_client=http.async_openai(),
            timeout=config.connection.read_timeout,
            max_retries=0,
            **arguments,
        )
        methods = ["chat", "stream_chat", "achat", "astream_chat"]
        yield with_thinking(llm, config, methods, in_argument("messages", _think))
