"""A chat model that answers BFCL tasks without a server, for tests of the agent and of what is built on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

from nat_dynamo_bfcl.answers import closing_sentence, solution
from nat_dynamo_bfcl.benchmark import Task, tasks
from nat_dynamo_bfcl.calls import ToolCall

Reply = Callable[[Task, int, int], AIMessage]


def solve(task: Task, turn: int, step: int) -> AIMessage:
    """The right reply: the ground truth's calls one by one, then a closing sentence."""
    calls = solution(task)[turn]
    if step == len(calls):
        return AIMessage(closing_sentence(turn, calls))
    return reply_with(calls[step], id=f"call-{turn}-{step}")


def reply_with(*calls: ToolCall, id: str = "call") -> AIMessage:
    """A reply that makes these calls, its arguments having gone through JSON as a server's do."""
    return AIMessage(
        "",
        tool_calls=[
            {"name": call.name, "args": json.loads(json.dumps(call.arguments)), "id": f"{id}-{index}"}
            for index, call in enumerate(calls)
        ],
    )


class FakeChatModel(BaseChatModel):
    """Finds out from the messages alone which task, turn and step it is asked about, and replies with `reply`."""

    reply: Reply
    _prompts: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _tools: list[list[dict[str, Any]]] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "fake"

    @property
    def prompts(self) -> list[list[BaseMessage]]:
        return self._prompts

    @property
    def bound_tools(self) -> list[list[dict[str, Any]]]:
        return self._tools

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> FakeChatModel:
        self._tools.append(list(tools))
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self._prompts.append(list(messages))
        humans = [index for index, message in enumerate(messages) if isinstance(message, HumanMessage)]
        task = next(task for task in tasks().values() if task.turns[0] == messages[humans[0]].content)
        step = sum(isinstance(message, AIMessage) for message in messages[humans[-1] :])
        return ChatResult(generations=[ChatGeneration(message=self.reply(task, len(humans) - 1, step))])
