"""What NAT's entry point loads: an agent for each framework without one in NAT, a tool, and the script of the answers.

Frameworks are imported where they are used: every `nat` command loads this module.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

from nat.builder.builder import Builder
from nat.builder.framework_enum import LLMFrameworkEnum
from nat.builder.function_info import FunctionInfo
from nat.cli.register_workflow import register_function, register_middleware
from nat.data_models.component_ref import FunctionRef, LLMRef
from nat.data_models.function import FunctionBaseConfig
from nat.data_models.middleware import FunctionMiddlewareBaseConfig
from nat.middleware.function_middleware import FunctionMiddleware
from nat.middleware.middleware import CallNext, FunctionMiddlewareContext
from pydantic import Field

from nat_dynamo_plugin.local import scripted_answers


class AgentConfig(FunctionBaseConfig):
    """What all these agents are given."""

    llm_name: LLMRef = Field(description="The LLM that the agent asks.")
    tool_names: list[FunctionRef] = Field(default_factory=list, description="The tools that it may use.")
    instructions: str = Field(default="Answer in one sentence. Look up what you do not know.")


class LlamaIndexAgentConfig(AgentConfig, name="llama_index_agent"):
    """LlamaIndex' FunctionAgent."""


class AdkAgentConfig(AgentConfig, name="adk_agent"):
    """Google ADK's LlmAgent."""


class CrewAIAgentConfig(AgentConfig, name="crewai_agent"):
    """A CrewAI crew of one agent with one task."""


class AgnoAgentConfig(AgentConfig, name="agno_agent"):
    """Agno's Agent."""


class AutoGenAgentConfig(AgentConfig, name="autogen_agent"):
    """AutoGen's AssistantAgent."""


class SemanticKernelAgentConfig(AgentConfig, name="semantic_kernel_agent"):
    """Semantic Kernel's ChatCompletionAgent."""


class StrandsAgentConfig(AgentConfig, name="strands_agent"):
    """Strands' Agent."""


AGENTS: dict[type[AgentConfig], LLMFrameworkEnum] = {
    LlamaIndexAgentConfig: LLMFrameworkEnum.LLAMA_INDEX,
    AdkAgentConfig: LLMFrameworkEnum.ADK,
    CrewAIAgentConfig: LLMFrameworkEnum.CREWAI,
    AgnoAgentConfig: LLMFrameworkEnum.AGNO,
    AutoGenAgentConfig: LLMFrameworkEnum.AUTOGEN,
    SemanticKernelAgentConfig: LLMFrameworkEnum.SEMANTIC_KERNEL,
    StrandsAgentConfig: LLMFrameworkEnum.STRANDS,
}
"""Each framework's agent is `agents/<framework>.py`."""


def _register(config_type: type[AgentConfig], framework: LLMFrameworkEnum) -> None:
    @register_function(config_type=config_type, framework_wrappers=[framework])
    async def agent(config: AgentConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
        llm = await builder.get_llm(config.llm_name, wrapper_type=framework)
        tools = await builder.get_tools(tool_names=config.tool_names, wrapper_type=framework)
        make = import_module(f"nat_dynamo_examples.agents.{framework.value}").agent
        respond = make(llm, tools, config.instructions)

        async def answer(question: str) -> str:
            return str(await respond(question))

        yield FunctionInfo.from_fn(answer, description=config_type.__doc__)


for _config_type, _framework in AGENTS.items():
    _register(_config_type, _framework)


class StockLevelConfig(FunctionBaseConfig, name="stock_level"):
    """A tool: how many pieces of an item are in stock."""

    stock: dict[str, int] = Field(default={"bolts": 17, "nuts": 23}, description="Pieces by item.")


@register_function(config_type=StockLevelConfig)
async def stock_level(config: StockLevelConfig, _builder: Builder) -> AsyncIterator[FunctionInfo]:
    """Register the tool."""

    async def look_up(item: str) -> str:
        return f"{config.stock.get(item, 0)} in stock"

    yield FunctionInfo.from_fn(look_up, description="How many pieces of an item are in stock.")


class ScriptedAnswersConfig(FunctionMiddlewareBaseConfig, name="scripted_answers"):
    """Tells an embedded Dynamo what to say, call by call; of no use with a real model."""

    keys: list[str] = Field(min_length=1, description="Scripted answers, in order; the last serves all further calls.")


class ScriptedAnswers(FunctionMiddleware):
    """Runs the wrapped function in a scope with the script."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__()
        self._keys = keys

    async def function_middleware_invoke(
        self, *args: Any, call_next: CallNext, context: FunctionMiddlewareContext, **kwargs: Any
    ) -> Any:
        """Call the function inside the scope."""
        with scripted_answers(self._keys):
            return await call_next(*args, **kwargs)


@register_middleware(config_type=ScriptedAnswersConfig)
async def scripted_answers_middleware(
    config: ScriptedAnswersConfig, _builder: Builder
) -> AsyncIterator[ScriptedAnswers]:
    """Register the middleware."""
    yield ScriptedAnswers(config.keys)
