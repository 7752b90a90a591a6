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
from nat.llm.utils.thinking import BaseThinkingInjector, FunctionArgumentWrapper, patch_with_thinking

from ..config import DynamoModelConfig
from .arguments import checked_arguments
from .http import http_clients

# Arguments that are ours to set, so a user's extra field of that name would be a mistake.
_OURS = frozenset({"http_client", "http_async_client", "client", "async_client", "root_client", "root_async_client"})


def _known_arguments() -> frozenset[str]:
    names: set[str] = set()
    for name, field in ChatOpenAI.model_fields.items():
        names.add(name)
        if field.alias:
            names.add(field.alias)
    return frozenset(names - _OURS)


class _LangChainThinking(BaseThinkingInjector):
    """Puts NAT's thinking prompt into the system message of a call."""

    def inject(self, *args: Any, **kwargs: Any) -> FunctionArgumentWrapper:
        messages, *rest = args
        if isinstance(messages, PromptValue):
            messages = messages.to_messages()
        elif isinstance(messages, str):
            messages = [HumanMessage(content=messages)]
        if not isinstance(messages, Sequence) or not all(isinstance(m, BaseMessage) for m in messages):
            raise ValueError(f"Thinking can not be set on messages of type {type(messages).__name__}")
        injected = list(messages)
        for i, message in enumerate(injected):
            if isinstance(message, SystemMessage):
                if self.system_prompt not in str(message.content):
                    injected[i] = SystemMessage(content=f"{message.content}\n{self.system_prompt}")
                break
        else:
            injected.insert(0, SystemMessage(content=self.system_prompt))
        return FunctionArgumentWrapper(injected, *rest, **kwargs)


@asynccontextmanager
async def client(config: DynamoModelConfig) -> AsyncIterator[Any]:
    """A `ChatOpenAI` for this config, closed with the workflow."""
    arguments = checked_arguments(config.openai_arguments, _known_arguments(), "ChatOpenAI")
    async with http_clients(config) as http:
        service = http.service
        if config.api_type == APITypeEnum.RESPONSES:
            arguments |= {"use_responses_api": True, "use_previous_response_id": True}
        chat = ChatOpenAI(
            model=service.model_name,
            base_url=service.base_url,
            api_key=service.api_key,
            http_client=http.sync,
            http_async_client=http.asynchronous,
            timeout=http.timeout,
            # Retries are made below, once for all frameworks.
            max_retries=0,
            stream_usage=True,
            **arguments,
        )
        configurable = chat.configurable_fields(model_name=ConfigurableField(id="model_name"))
        if config.thinking_system_prompt is not None:
            configurable = patch_with_thinking(
                configurable,
                _LangChainThinking(
                    system_prompt=config.thinking_system_prompt,
                    function_names=["invoke", "ainvoke", "stream", "astream"],
                ),
            )
        yield configurable
