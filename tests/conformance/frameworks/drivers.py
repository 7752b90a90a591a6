"""How each framework is asked: the same few things in eight dialects. Frameworks are imported where they are used."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

from nat.builder.framework_enum import LLMFrameworkEnum

PATIENCE_S = 60.0
"""Seconds after which something that must come about counts as never; far above what it takes on any machine."""

TOOL = "stock_level"
TOOL_DESCRIPTION = "How many pieces of an item are in stock."
TOOL_SCHEMA = {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]}
TOOL_RESULT = "17 in stock"


def stock_level(item: str) -> str:
    """How many pieces of an item are in stock."""
    return TOOL_RESULT


@dataclass
class ToolUse:
    """What came of a question with a tool: the arguments the model called it with, and its answer to the result."""

    arguments: dict[str, Any]
    answer: str


@dataclass
class Driver:
    """One framework. `llm` is what `builder.get_llm` would give."""

    framework: ClassVar[LLMFrameworkEnum]
    module: ClassVar[str]
    has_sync: ClassVar[bool] = True
    has_async: ClassVar[bool] = True
    has_responses: ClassVar[bool] = False
    streaming_config: ClassVar[dict[str, Any]] = {}
    """Config fields that make this framework stream, where that is not said by the call."""
    plain_config: ClassVar[dict[str, Any]] = {}
    """Config fields that make it not stream."""

    history: list[Any] = field(default_factory=list)

    def extra_body(self, body: dict[str, Any]) -> dict[str, Any]:
        """Config fields with which this framework sends further fields in each request."""
        return {"extra_body": body}

    def errors(self) -> dict[str, type[Exception]]:
        """The framework's exception types: `server` for a 400, `timeout` for no answer in time."""
        import openai

        return {"server": openai.BadRequestError, "timeout": openai.APITimeoutError}

    async def ask(self, llm: Any, question: str) -> str:
        raise NotImplementedError

    def ask_sync(self, llm: Any, question: str) -> str:
        raise NotImplementedError

    async def stream(self, llm: Any, question: str) -> list[str]:
        raise NotImplementedError

    async def use_tool(self, llm: Any, question: str) -> ToolUse:
        raise NotImplementedError


class LangChain(Driver):
    framework = LLMFrameworkEnum.LANGCHAIN
    module = "langchain"
    has_responses = True

    async def ask(self, llm: Any, question: str) -> str:
        return str((await llm.ainvoke(question)).text)

    def ask_sync(self, llm: Any, question: str) -> str:
        return str(llm.invoke(question).text)

    async def stream(self, llm: Any, question: str) -> list[str]:
        return [str(chunk.text) async for chunk in llm.astream(question) if chunk.text]

    async def use_tool(self, llm: Any, question: str) -> ToolUse:
        from langchain_core.messages import HumanMessage, ToolMessage

        bound = llm.bind_tools([stock_level])
        messages: list[Any] = [HumanMessage(question)]
        messages.append(await bound.ainvoke(messages))
        call = messages[-1].tool_calls[0]
        messages.append(ToolMessage(stock_level(**call["args"]), tool_call_id=call["id"]))
        return ToolUse(call["args"], str((await bound.ainvoke(messages)).text))


class LlamaIndex(Driver):
    framework = LLMFrameworkEnum.LLAMA_INDEX
    module = "llama_index"
    has_responses = True

    def extra_body(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"additional_kwargs": {"extra_body": body}}

    @staticmethod
    def _messages(question: str) -> list[Any]:
        from llama_index.core.base.llms.types import ChatMessage

        return [ChatMessage(role="user", content=question)]

    async def ask(self, llm: Any, question: str) -> str:
        return str((await llm.achat(self._messages(question))).message.content)

    def ask_sync(self, llm: Any, question: str) -> str:
        return str(llm.chat(self._messages(question)).message.content)

    async def stream(self, llm: Any, question: str) -> list[str]:
        return [chunk.delta async for chunk in await llm.astream_chat(self._messages(question)) if chunk.delta]

    async def use_tool(self, llm: Any, question: str) -> ToolUse:
        from llama_index.core.base.llms.types import ChatMessage
        from llama_index.core.tools import FunctionTool

        tools = [FunctionTool.from_defaults(stock_level)]
        messages = self._messages(question)
        first = await llm.achat_with_tools(tools, chat_history=messages)
        call = llm.get_tool_calls_from_response(first)[0]
        result = ChatMessage(
            role="tool", content=stock_level(**call.tool_kwargs), additional_kwargs={"tool_call_id": call.tool_id}
        )
        last = await llm.achat_with_tools(tools, chat_history=[*messages, first.message, result])
        return ToolUse(call.tool_kwargs, str(last.message.content))


class Adk(Driver):
    framework = LLMFrameworkEnum.ADK
    module = "adk"
    has_sync = False

    def errors(self) -> dict[str, type[Exception]]:
        import litellm

        return {"server": litellm.BadRequestError, "timeout": litellm.Timeout}

    @staticmethod
    async def _generate(llm: Any, contents: list[Any], *, stream: bool = False, tools: bool = False) -> list[Any]:
        from google.adk.models import LlmRequest
        from google.genai import types

        request = LlmRequest(contents=list(contents))
        if tools:
            declaration = types.FunctionDeclaration(
                name=TOOL, description=TOOL_DESCRIPTION, parameters_json_schema=TOOL_SCHEMA
            )
            request.config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declaration])])
        return [response async for response in llm.generate_content_async(request, stream=stream)]

    @staticmethod
    def _user(text: str) -> Any:
        from google.genai import types

        return types.Content(role="user", parts=[types.Part(text=text)])

    async def ask(self, llm: Any, question: str) -> str:
        return str((await self._generate(llm, [self._user(question)]))[-1].content.parts[0].text)

    async def stream(self, llm: Any, question: str) -> list[str]:
        responses = await self._generate(llm, [self._user(question)], stream=True)
        return [response.content.parts[0].text for response in responses if response.partial]

    async def use_tool(self, llm: Any, question: str) -> ToolUse:
        from google.genai import types

        contents = [self._user(question)]
        answer = (await self._generate(llm, contents, tools=True))[-1].content
        call = next(part.function_call for part in answer.parts if part.function_call)
        result = types.FunctionResponse(id=call.id, name=call.name, response={"result": stock_level(**call.args)})
        contents += [answer, types.Content(role="user", parts=[types.Part(function_response=result)])]
        return ToolUse(call.args, str((await self._generate(llm, contents, tools=True))[-1].content.parts[0].text))


class CrewAI(Driver):
    framework = LLMFrameworkEnum.CREWAI
    module = "crewai"
    has_async = False
    streaming_config: ClassVar[dict[str, Any]] = {"stream": True}

    def errors(self) -> dict[str, type[Exception]]:
        # CrewAI turns the OpenAI library's connection errors, a timeout included, into Python's own.
        return {**super().errors(), "timeout": ConnectionError}

    def ask_sync(self, llm: Any, question: str) -> str:
        return str(llm.call([{"role": "user", "content": question}]))

    async def stream(self, llm: Any, question: str) -> list[str]:
        from crewai.events import LLMStreamChunkEvent, crewai_event_bus

        pieces: list[str] = []
        with crewai_event_bus.scoped_handlers():

            def take(_source: Any, event: LLMStreamChunkEvent) -> None:
                pieces.append(event.chunk)

            crewai_event_bus.on(LLMStreamChunkEvent)(take)
            whole = self.ask_sync(llm, question)
            # The handlers run in a pool of threads: some may still be to come, and their order says nothing.
            deadline = time.monotonic() + PATIENCE_S
            while sum(map(len, pieces)) < len(whole) and time.monotonic() < deadline:  # noqa: ASYNC110 - threads
                await asyncio.sleep(0.02)
        assert sorted("".join(pieces)) == sorted(whole)
        return [whole, *[""] * (len(pieces) - 1)]

    async def use_tool(self, llm: Any, question: str) -> ToolUse:
        seen: list[dict[str, Any]] = []

        def tool(**arguments: Any) -> str:
            seen.append(arguments)
            return stock_level(**arguments)

        schema = {"name": TOOL, "description": TOOL_DESCRIPTION, "parameters": TOOL_SCHEMA}
        tools = [{"type": "function", "function": schema}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
        # CrewAI runs the tool and hands its result back; the conversation is the caller's.
        result = llm.call(messages, tools=tools, available_functions={TOOL: tool})
        call = {"id": "call-1", "type": "function", "function": {"name": TOOL, "arguments": '{"item": "bolts"}'}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": "call-1", "content": result})
        return ToolUse(seen[0], str(llm.call(messages, tools=tools, available_functions={TOOL: tool})))


class Agno(Driver):
    framework = LLMFrameworkEnum.AGNO
    module = "agno"
    has_responses = True

    def errors(self) -> dict[str, type[Exception]]:
        from agno.exceptions import ModelProviderError

        return {"server": ModelProviderError, "timeout": ModelProviderError}

    @staticmethod
    def _messages(question: str) -> list[Any]:
        from agno.models.message import Message

        return [Message(role="user", content=question)]

    async def ask(self, llm: Any, question: str) -> str:
        return str((await llm.aresponse(messages=self._messages(question))).content)

    def ask_sync(self, llm: Any, question: str) -> str:
        return str(llm.response(messages=self._messages(question)).content)

    async def stream(self, llm: Any, question: str) -> list[str]:
        chunks = [chunk async for chunk in llm.aresponse_stream(messages=self._messages(question))]
        return [chunk.content for chunk in chunks if chunk.event == "AssistantResponse" and chunk.content]

    async def use_tool(self, llm: Any, question: str) -> ToolUse:
        from agno.tools.function import Function

        seen: list[dict[str, Any]] = []

        def tool(item: str) -> str:
            seen.append({"item": item})
            return stock_level(item)

        function = Function(name=TOOL, description=TOOL_DESCRIPTION, parameters=TOOL_SCHEMA, entrypoint=tool)
        answer = await llm.aresponse(messages=self._messages(question), tools=[function])
        return ToolUse(seen[0], str(answer.content))


class AutoGen(Driver):
    framework = LLMFrameworkEnum.AUTOGEN
    module = "autogen"
    has_sync = False

    @staticmethod
    def _messages(question: str) -> list[Any]:
        from autogen_core.models import UserMessage

        return [UserMessage(content=question, source="user")]

    async def ask(self, llm: Any, question: str) -> str:
        return str((await llm.create(self._messages(question))).content)

    async def stream(self, llm: Any, question: str) -> list[str]:
        return [chunk async for chunk in llm.create_stream(self._messages(question)) if isinstance(chunk, str)]

    async def use_tool(self, llm: Any, question: str) -> ToolUse:
        import json

        from autogen_core.models import AssistantMessage, FunctionExecutionResult, FunctionExecutionResultMessage

        tools = [{"name": TOOL, "description": TOOL_DESCRIPTION, "parameters": TOOL_SCHEMA}]
        messages = self._messages(question)
        first = await llm.create(messages, tools=tools)
        call = first.content[0]
        arguments = json.loads(call.arguments)
        result = FunctionExecutionResult(
            content=stock_level(**arguments), name=call.name, call_id=call.id, is_error=False
        )
        messages += [
            AssistantMessage(content=first.content, source="agent"),
            FunctionExecutionResultMessage(content=[result]),
        ]
        return ToolUse(arguments, str((await llm.create(messages, tools=tools)).content))


class SemanticKernel(Driver):
    framework = LLMFrameworkEnum.SEMANTIC_KERNEL
    module = "semantic_kernel"
    has_sync = False

    def errors(self) -> dict[str, type[Exception]]:
        from semantic_kernel.exceptions import ServiceResponseException

        return {"server": ServiceResponseException, "timeout": ServiceResponseException}

    @staticmethod
    def _history(question: str) -> Any:
        from semantic_kernel.contents.chat_history import ChatHistory

        history = ChatHistory()
        history.add_user_message(question)
        return history

    async def ask(self, llm: Any, question: str) -> str:
        from semantic_kernel.connectors.ai.open_ai import OpenAIChatPromptExecutionSettings

        settings = OpenAIChatPromptExecutionSettings()
        return str(await llm.get_chat_message_content(self._history(question), settings))

    async def stream(self, llm: Any, question: str) -> list[str]:
        from semantic_kernel.connectors.ai.open_ai import OpenAIChatPromptExecutionSettings

        settings = OpenAIChatPromptExecutionSettings()
        chunks = llm.get_streaming_chat_message_content(self._history(question), settings)
        return [str(chunk) async for chunk in chunks if str(chunk)]

    async def use_tool(self, llm: Any, question: str) -> ToolUse:
        from semantic_kernel import Kernel
        from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
        from semantic_kernel.connectors.ai.open_ai import OpenAIChatPromptExecutionSettings
        from semantic_kernel.functions import kernel_function

        seen: list[dict[str, Any]] = []

        @kernel_function(name=TOOL, description=TOOL_DESCRIPTION)
        def tool(item: str) -> str:
            seen.append({"item": item})
            return stock_level(item)

        kernel = Kernel(services=[llm])
        kernel.add_function(plugin_name="shop", function=tool)
        settings = OpenAIChatPromptExecutionSettings(function_choice_behavior=FunctionChoiceBehavior.Auto())
        answer = await llm.get_chat_message_content(self._history(question), settings, kernel=kernel)
        return ToolUse(seen[0], str(answer))


class Strands(Driver):
    framework = LLMFrameworkEnum.STRANDS
    module = "strands"
    plain_config: ClassVar[dict[str, Any]] = {"stream": False}

    @staticmethod
    def _agent(llm: Any, tools: list[Any] | None = None) -> Any:
        from strands import Agent

        return Agent(model=llm, tools=tools, callback_handler=None)

    async def ask(self, llm: Any, question: str) -> str:
        return str(await self._agent(llm).invoke_async(question)).strip()

    def ask_sync(self, llm: Any, question: str) -> str:
        return str(self._agent(llm)(question)).strip()

    async def stream(self, llm: Any, question: str) -> list[str]:
        events = [event async for event in self._agent(llm).stream_async(question)]
        return [event["data"] for event in events if "data" in event]

    async def use_tool(self, llm: Any, question: str) -> ToolUse:
        from strands import tool

        seen: list[dict[str, Any]] = []

        @tool(name=TOOL, description=TOOL_DESCRIPTION)
        def stock(item: str) -> str:
            seen.append({"item": item})
            return stock_level(item)

        answer = str(await self._agent(llm, [stock]).invoke_async(question)).strip()
        return ToolUse(seen[0], answer)


DRIVERS: tuple[type[Driver], ...] = (
    LangChain,
    LlamaIndex,
    Adk,
    CrewAI,
    Agno,
    AutoGen,
    SemanticKernel,
    Strands,
)


def make_client(driver: Driver, config: Any) -> Any:
    """The framework's client for a config, as an async context manager."""
    return import_module(f"nat_dynamo_plugin.clients.{driver.module}").client(config)
