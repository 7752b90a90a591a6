"""The benchmark agent: a LangGraph tool loop over the tools of one BFCL task, several user turns long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any, cast

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
)
from langchain_core.messages.tool import InvalidToolCall
from langchain_core.output_parsers.openai_tools import parse_tool_call
from langchain_core.runnables import Runnable
from langchain_core.tools import StructuredTool
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.runtime import Runtime
from langgraph.types import Command

from nat_dynamo_bfcl.answers import answer_key
from nat_dynamo_bfcl.benchmark import Task, function_docs
from nat_dynamo_bfcl.calls import ToolCall, is_python_name
from nat_dynamo_bfcl.environment import Environment
from nat_dynamo_bfcl.result import Result
from nat_dynamo_bfcl.schema import to_openai_tool
from nat_dynamo_plugin.local import scripted_answer
from nat_dynamo_plugin.question.hints import DynamoHints

logger = logging.getLogger(__name__)

SYSTEM_PROMPT = """\
You are an assistant that gets things done with tools. Work through the user's request with the tools you are given, \
one call or several at a time, and read what each call returns before you go on.

- Take argument values from the conversation and from what tools returned. Never invent them.
- If a call fails, read its error, and correct the call or choose another tool.
- Do what was asked and nothing else. When it is done, or if it cannot be done with these tools, answer the user \
in one or two sentences without calling a tool.
"""

# Arguments reach a tool as the model wrote them: what is wrong with them is the tool's to say, as in BFCL.
_ANY_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": True}

Model = Runnable[LanguageModelInput, Any]
Ask = Callable[[Model, list[AnyMessage]], Awaitable[Any]]


async def _ask_async(model: Model, messages: list[AnyMessage]) -> Any:
    return await model.ainvoke(messages)


async def _ask_async_stream(model: Model, messages: list[AnyMessage]) -> Any:
    return _joined([chunk async for chunk in model.astream(messages)])


async def _ask_sync(model: Model, messages: list[AnyMessage]) -> Any:
    return await asyncio.to_thread(model.invoke, messages)


async def _ask_sync_stream(model: Model, messages: list[AnyMessage]) -> Any:
    return _joined(await asyncio.to_thread(lambda: list(model.stream(messages))))


def _joined(chunks: list[AIMessageChunk]) -> Any:
    whole = reduce(add, chunks)
    message = message_chunk_to_message(whole)
    if isinstance(whole, AIMessageChunk) and isinstance(message, AIMessage):
        # LangChain mends JSON that breaks off when it comes in chunks, and refuses it when it comes in one piece.
        message.tool_calls, message.invalid_tool_calls = [], []
        for chunk in whole.tool_call_chunks:
            name, arguments = chunk["name"] or "", chunk["args"] or ""
            try:
                call = parse_tool_call({"function": {"name": name, "arguments": arguments}, "id": chunk["id"]})
                if call is None or not isinstance(call["args"], dict):
                    raise OutputParserException(f"the arguments of {name} are no object: {arguments}")
                message.tool_calls.append(cast(Any, call))
            except OutputParserException as error:
                message.invalid_tool_calls.append(
                    InvalidToolCall(
                        type="invalid_tool_call", name=name, args=arguments, id=chunk["id"], error=str(error)
                    )
                )
    return message


WAYS_OF_ASKING: dict[str, Ask] = {
    "async": _ask_async,
    "async_stream": _ask_async_stream,
    "sync": _ask_sync,
    "sync_stream": _ask_sync_stream,
}
"""How an LLM call can be made; sync calls run in a thread of their own."""


@dataclass(slots=True)
class Question:
    """One question under way. The graph's nodes get it as their runtime context."""

    task: Task
    model: Model
    ask: Ask
    result: Result = field(init=False)
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    _environment: Environment = field(init=False)
    _step: int = 0

    def __post_init__(self) -> None:
        self.result = Result(self.task.id)
        self._environment = Environment(self.task)

    def start_turn(self) -> None:
        self.result.calls.append([])
        self._step = 0

    def start_step(self) -> None:
        self.result.calls[-1].append([])

    def next_answer_key(self) -> str:
        """The key of the reply that comes next, should replies be scripted."""
        key = answer_key(self.task.id, len(self.result.calls) - 1, self._step)
        self._step += 1
        self.result.llm_calls += 1
        return key

    def tool(self, name: str) -> StructuredTool:
        """The tool of that name, or of any other name: it is BFCL's to say that there is none."""

        async def call(**arguments: Any) -> str:
            return self._execute(ToolCall(name, arguments))

        return StructuredTool(name=name, description=name, args_schema=_ANY_ARGUMENTS, coroutine=call)

    def _execute(self, call: ToolCall) -> str:
        # The checker executes what is noted here, so nothing is that is not a plain call of one of the task's tools.
        if call.name in self._environment and all(map(is_python_name, call.arguments)):
            self.result.calls[-1][-1].append(call.render())
        return self._environment.execute(call)


class BfclAgent:
    """Answers BFCL tasks. One agent serves all questions of a run, also at the same time.

    Args:
        llm: the chat model.
        system_prompt: the first message of every question.
        max_steps: replies with calls that a turn may take; one reply more may close it. BFCL's own limit is 20.
        ask: how LLM calls are made, a key of `WAYS_OF_ASKING`.
    """

    def __init__(
        self, llm: BaseChatModel, *, system_prompt: str = SYSTEM_PROMPT, max_steps: int = 20, ask: str = "async"
    ) -> None:
        self._llm = llm
        self._ask = WAYS_OF_ASKING[ask]
        self._system = SystemMessage(system_prompt)
        self._max_steps = max_steps
        self._models: dict[tuple[str, ...], Model] = {}
        self._graph = _build_graph()

    async def answer(self, task: Task) -> Result:
        """Put a task's user turns to the model one after the other and execute what it calls.

        A failing LLM call ends the question, and so does a turn without an end unless it is the last, which BFCL checks
        all the same. The run goes on; the result's `error` tells.
        """
        question = Question(task, self._model_for(task), self._ask)
        tools = "+".join(task.involved_classes)
        # What a server can know of a question before it answers: the number of its user turns, and its tools.
        with DynamoHints.scope(kind=f"turns={len(task.turns)},tools={tools}"):
            await self._answer(question)
        return question.result

    async def _answer(self, question: Question) -> None:
        task = question.task
        messages: list[AnyMessage] = [self._system]
        for turn, text in enumerate(task.turns):
            question.start_turn()
            try:
                state = await self._graph.ainvoke(
                    {"messages": [*messages, HumanMessage(text)]},
                    # BFCL executes the calls of the reply after the last allowed step too, and quits then.
                    config={"recursion_limit": 2 * (self._max_steps + 1)},
                    context=question,
                )
            except GraphRecursionError:
                if turn < len(task.turns) - 1:
                    question.result.error = f"turn {turn}: no closing reply after {self._max_steps} steps with calls"
                break
            except Exception as error:
                question.result.error = f"turn {turn}: {type(error).__name__}: {error}"
                logger.exception("%s failed in turn %d", task.id, turn)
                break
            messages = state["messages"]
            reply = next(message for message in reversed(messages) if isinstance(message, AIMessage))
            question.result.answers.append(str(reply.text))

    def _model_for(self, task: Task) -> Model:
        classes = task.involved_classes
        if classes not in self._models:
            docs = [doc for name in classes for doc in function_docs(name)]
            self._models[classes] = self._llm.bind_tools([to_openai_tool(doc) for doc in docs])
        return self._models[classes]


def _build_graph() -> CompiledStateGraph[MessagesState, Question, MessagesState, MessagesState]:
    graph = StateGraph(MessagesState, context_schema=Question)
    graph.add_node("model", _call_model, destinations=("tools", END))
    graph.add_node("tools", ToolNode([], awrap_tool_call=_call_tool))
    graph.add_edge(START, "model")
    graph.add_edge("tools", "model")
    return graph.compile()


async def _call_model(state: MessagesState, runtime: Runtime[Question]) -> Command[Any]:
    question = runtime.context
    # Acts only on an embedded Dynamo with scripted answers; any other server never sees it.
    with scripted_answer(question.next_answer_key()):
        reply = await question.ask(question.model, state["messages"])
    # Where to go is said here, not on a conditional edge: every traced step costs NAT a copy of the conversation.
    if reply.invalid_tool_calls:
        return Command(update={"messages": [reply, *_unread(reply)]}, goto=END)
    if reply.tool_calls:
        question.start_step()
    return Command(update={"messages": [reply]}, goto="tools" if reply.tool_calls else END)


def _unread(reply: AIMessage) -> list[AnyMessage]:
    """What a reply's calls get if one of them can not be read: as in BFCL none is made, and the turn is over.

    Every call needs its answer, or the next turn's request is malformed.
    """
    errors = [(call["id"], f"Error during execution: {call['error']}") for call in reply.invalid_tool_calls]
    errors += [(call["id"], "Not executed: another call of this reply is no JSON") for call in reply.tool_calls]
    return [ToolMessage(text, tool_call_id=call_id or "", status="error") for call_id, text in errors]


async def _call_tool(
    request: ToolCallRequest, execute: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
) -> ToolMessage | Command[Any]:
    question = cast(Question, request.runtime.context)
    # ToolNode starts the calls of one reply together, but they share one state, and BFCL makes them in their order.
    async with question.one_at_a_time:
        return await execute(request.override(tool=question.tool(request.tool_call["name"])))
