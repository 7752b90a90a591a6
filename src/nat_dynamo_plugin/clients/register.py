"""The list of frameworks. Each is one line here and one file beside; the file is imported when a client is made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import Any

from nat.builder.builder import Builder
from nat.builder.framework_enum import LLMFrameworkEnum
from nat.cli.register_workflow import register_llm_client

from nat_dynamo_plugin.config.model import DynamoModelConfig

FRAMEWORKS: dict[LLMFrameworkEnum, tuple[str, str]] = {
    LLMFrameworkEnum.LANGCHAIN: ("langchain", "langchain"),
    LLMFrameworkEnum.LLAMA_INDEX: ("llama_index", "llama-index"),
    LLMFrameworkEnum.ADK: ("adk", "adk"),
    LLMFrameworkEnum.CREWAI: ("crewai", "crewai"),
    LLMFrameworkEnum.AGNO: ("agno", "agno"),
    LLMFrameworkEnum.AUTOGEN: ("autogen", "autogen"),
    LLMFrameworkEnum.SEMANTIC_KERNEL: ("semantic_kernel", "semantic-kernel"),
    LLMFrameworkEnum.STRANDS: ("strands", "strands"),
}
"""Framework: the file beside this one, and the extra to install."""


class MissingFrameworkError(ImportError):
    """A client was asked for whose framework is not installed."""


def client_of(module: str, extra: str) -> Callable[[DynamoModelConfig, Builder], AsyncIterator[Any]]:
    """What NAT calls to make a client: imports `clients/<module>.py`, or says which extra is missing."""

    async def client(config: DynamoModelConfig, builder: Builder) -> AsyncIterator[Any]:
        try:
            make = import_module(f"nat_dynamo_plugin.clients.{module}").client
        except ImportError as error:
            raise MissingFrameworkError(
                f"`_type: dynamo` needs a framework that is not installed ({error}); install nat-dynamo-plugin[{extra}]"
            ) from error
        async with make(config) as made:
            yield made

    return client


for _framework, (_module, _extra) in FRAMEWORKS.items():
    register_llm_client(config_type=DynamoModelConfig, wrapper_type=_framework)(client_of(_module, _extra))
