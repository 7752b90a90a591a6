from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from nat_dynamo_bfcl.agent import WAYS_OF_ASKING, BfclAgent
from nat_dynamo_bfcl.answers import answer_key, solution
from nat_dynamo_bfcl.benchmark import Task, check, get_task
from nat_dynamo_bfcl.calls import ToolCall
from nat_dynamo_bfcl.testing import FakeChatModel, reply_with, solve
from nat_dynamo_plugin.local import current_scripted_answer
from nat_dynamo_plugin.question.hints import DynamoHints, ScopeHints

# Each class of tools at least once, a turn without calls, arguments without names, changing lists.
SAMPLE = [f"multi_turn_base_{number}" for number in (0, 31, 48, 90, 108, 156, 167, 180)]


@pytest.mark.parametrize("task_id", SAMPLE)
async def test_right_replies_solve_the_task(task_id: str) -> None:
    task = get_task(task_id)
    model = FakeChatModel(reply=solve)
    result = await BfclAgent(model).answer(task)
    expected = solution(task)
    assert result.error is None
    assert result.calls == [[[call.render()] for call in turn] for turn in expected]
    assert result.llm_calls == len(model.prompts) == sum(len(turn) + 1 for turn in expected)
    assert len(result.answers) == len(task.turns)
    assert check(task, json.loads(result.to_json())["calls"]) == {"valid": True}


@pytest.mark.parametrize("ask", WAYS_OF_ASKING)
async def test_every_way_of_asking_solves_the_task(ask: str) -> None:
    task = get_task("multi_turn_base_0")
    result = await BfclAgent(FakeChatModel(reply=solve), ask=ask).answer(task)
    assert result.error is None and check(task, json.loads(result.to_json())["calls"]) == {"valid": True}


async def test_says_what_is_known_before_the_first_answer_and_no_more() -> None:
    seen = []

    def watching(*args: Any, **kwargs: Any) -> Any:
        seen.append(DynamoHints.current())
        return solve(*args, **kwargs)

    task = get_task("multi_turn_base_0")
    await BfclAgent(FakeChatModel(reply=watching)).answer(task)
    tools = "+".join(task.involved_classes)
    assert set(seen) == {ScopeHints(kind=f"turns={len(task.turns)},tools={tools}")}
    assert DynamoHints.current() is None


async def test_the_prompt_only_ever_grows() -> None:
    """A prompt whose beginning changes can not be reused from a cache. This task's tools change the lists they get."""
    model = FakeChatModel(reply=solve)
    task = get_task("multi_turn_base_90")
    await BfclAgent(model).answer(task)
    for earlier, later in zip(model.prompts, model.prompts[1:], strict=False):
        assert later[: len(earlier)] == earlier
        assert len(later) > len(earlier)
    assert isinstance(model.prompts[-1][0], SystemMessage)
    assert [m.content for m in model.prompts[-1] if isinstance(m, HumanMessage)] == list(task.turns)
    posted = next(
        m
        for m in model.prompts[-1]
        if isinstance(m, AIMessage) and m.tool_calls[:1] and "mentions" in m.tool_calls[0]["args"]
    )
    assert posted.tool_calls[0]["args"]["mentions"] == ["@TravelBuddy"]


async def test_tool_results_come_back_to_the_model() -> None:
    model = FakeChatModel(reply=solve)
    await BfclAgent(model).answer(get_task("multi_turn_base_0"))
    results = [message for message in model.prompts[1] if isinstance(message, ToolMessage)]
    assert [message.content for message in results] == ['{"current_working_directory": "document"}']
    assert results[0].tool_call_id == model.prompts[1][-2].tool_calls[0]["id"]  # type: ignore[attr-defined]


async def test_each_llm_call_is_made_under_the_key_of_its_scripted_answer() -> None:
    keys: list[str | None] = []

    def reply(task: Task, turn: int, step: int) -> AIMessage:
        keys.append(current_scripted_answer())
        return solve(task, turn, step)

    task = get_task("multi_turn_base_0")
    await BfclAgent(FakeChatModel(reply=reply)).answer(task)
    assert keys == [
        answer_key(task.id, turn, step) for turn, calls in enumerate(solution(task)) for step in range(len(calls) + 1)
    ]
    assert current_scripted_answer() is None


async def test_questions_at_the_same_time_do_not_mix() -> None:
    agent = BfclAgent(FakeChatModel(reply=solve))
    results = await asyncio.gather(*(agent.answer(get_task(task_id)) for task_id in SAMPLE * 2))
    assert [result.id for result in results] == SAMPLE * 2
    assert all(check(get_task(result.id), result.calls)["valid"] for result in results)


async def test_tools_are_bound_once_for_each_set_of_classes() -> None:
    model = FakeChatModel(reply=solve)
    agent = BfclAgent(model)
    for task_id in ("multi_turn_base_0", "multi_turn_base_4", "multi_turn_base_0"):
        await agent.answer(get_task(task_id))
    assert len(model.bound_tools) == len(
        {get_task(task_id).involved_classes for task_id in ("multi_turn_base_0", "multi_turn_base_4")}
    )


async def test_several_calls_of_one_reply_are_made_in_their_order() -> None:
    task = get_task("multi_turn_base_0")

    def reply(task: Task, turn: int, step: int) -> AIMessage:
        return AIMessage("Done.") if step else reply_with(*solution(task)[turn])

    model = FakeChatModel(reply=reply)
    result = await BfclAgent(model).answer(task)
    assert result.calls == [[[call.render() for call in turn]] for turn in solution(task)]
    assert check(task, result.calls) == {"valid": True}
    results = [message.content for message in model.prompts[1] if isinstance(message, ToolMessage)]
    assert results[0] == '{"current_working_directory": "document"}'
    assert len(results) == 3


async def test_errors_are_the_models_to_read() -> None:
    def reply(task: Task, turn: int, step: int) -> AIMessage:
        match step:
            case 0:
                return reply_with(
                    ToolCall("cd", {"folder": "nowhere"}),
                    ToolCall("cd", {"wings": 2}),
                    ToolCall("fly", {}),
                    ToolCall("__init__", {}),
                    ToolCall("cd", {"folder='x') or exit(": 1}),
                )
            case _:
                return AIMessage("I give up.")

    model = FakeChatModel(reply=reply)
    result = await BfclAgent(model).answer(get_task("multi_turn_base_0"))
    assert result.error is None
    assert result.calls[0] == [["cd(folder='nowhere')", "cd(wings=2)"]]
    texts = [str(message.content) for message in model.prompts[1] if isinstance(message, ToolMessage)]
    assert "No such file or directory" in texts[0]
    assert "unexpected keyword argument 'wings'" in texts[1]
    assert texts[2] == "Error during execution: name 'fly' is not defined"
    assert texts[3] == "Error during execution: name '__init__' is not defined"
    assert "unexpected keyword argument" in texts[4]


UNREADABLE = '{"folder": "tem'
"""Arguments of a call that break off: LangChain reads them where they come in chunks, and not where they do not."""


class Server(FakeChatModel):
    """Streams its first reply's calls as OpenAI's servers do: the arguments as text, in pieces."""

    arguments: list[str]

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        reply = self._generate(messages).generations[0].message
        if len(self.prompts) > 1:
            yield ChatGenerationChunk(message=AIMessageChunk(reply.content))
            return
        for index, text in enumerate(self.arguments):
            for call in (
                tool_call_chunk(name="mkdir", args=text[:3], id=f"c{index}", index=index),
                tool_call_chunk(name=None, args=text[3:], id=None, index=index),
            ):
                yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[call]))


def unreadable_reply() -> AIMessage:
    reply = reply_with(ToolCall("mkdir", {"dir_name": "temp"}), id="good")
    return AIMessage(
        "",
        tool_calls=reply.tool_calls,
        invalid_tool_calls=[
            {"type": "invalid_tool_call", "name": "cd", "args": UNREADABLE, "id": "bad", "error": "not JSON"}
        ],
    )


async def test_a_call_that_is_no_json_ends_its_turn_and_no_call_of_its_reply_is_made() -> None:
    """As in BFCL, whose `decode_execute` raises for the whole reply, and whose turn is then over."""
    task = get_task("multi_turn_base_0")

    def reply(task: Task, turn: int, step: int) -> AIMessage:
        return unreadable_reply() if turn == 0 else solve(task, turn, step)

    model = FakeChatModel(reply=reply)
    result = await BfclAgent(model).answer(task)
    assert result.error is None
    assert result.calls[0] == []
    assert len(result.calls) == len(result.answers) == len(task.turns)
    assert check(task, result.calls)["error_type"] == "multi_turn:empty_turn_model_response"
    # The next request is well-formed: each call has its answer, and the next turn begins behind them.
    _, _, asked, *answers, following = model.prompts[1]
    assert isinstance(asked, AIMessage) and following.content == task.turns[1]
    assert {message.tool_call_id: message.content for message in answers if isinstance(message, ToolMessage)} == {
        "bad": "Error during execution: not JSON",
        "good-0": "Not executed: another call of this reply is no JSON",
    }


async def test_a_call_that_is_no_json_takes_nothing_from_the_steps_before() -> None:
    """BFCL passes over such a reply when it checks: what the turn had done counts."""
    task = get_task("multi_turn_base_0")

    def reply(task: Task, turn: int, step: int) -> AIMessage:
        return unreadable_reply() if turn == 0 and step == len(solution(task)[0]) else solve(task, turn, step)

    result = await BfclAgent(FakeChatModel(reply=reply)).answer(task)
    assert check(task, result.calls) == {"valid": True}


@pytest.mark.parametrize("ask", ["async_stream", "sync_stream"])
@pytest.mark.parametrize("arguments", [UNREADABLE, "[1]", '{"dir_name": "a"} {'])
async def test_arguments_that_come_in_pieces_are_read_as_strictly(ask: str, arguments: str) -> None:
    model = Server(reply=lambda task, turn, step: AIMessage("Done."), arguments=['{"dir_name": "b"}', arguments])
    result = await BfclAgent(model, ask=ask).answer(get_task("multi_turn_base_0"))
    assert result.error is None
    assert result.calls[0] == []
    answers = {m.tool_call_id: m.content for m in model.prompts[1] if isinstance(m, ToolMessage)}
    assert answers["c0"] == "Not executed: another call of this reply is no JSON"
    assert str(answers["c1"]).startswith("Error during execution: ") and arguments in str(answers["c1"])


async def test_arguments_that_come_in_pieces_reach_the_tools() -> None:
    model = Server(
        reply=lambda task, turn, step: AIMessage("Done."), arguments=['{"dir_name": "a"}', '{"dir_name": "b\\n"}', ""]
    )
    result = await BfclAgent(model, ask="async_stream").answer(get_task("multi_turn_base_0"))
    assert result.calls[0] == [["mkdir(dir_name='a')", "mkdir(dir_name='b\\n')", "mkdir()"]]


def always_calling(task: Task, turn: int, step: int) -> AIMessage:
    return reply_with(ToolCall("pwd", {}), id=f"call-{step}")


async def test_a_turn_without_an_end_ends_the_question() -> None:
    """BFCL's count goes on to its limit of steps and one beyond, whose calls are executed too."""
    model = FakeChatModel(reply=always_calling)
    result = await BfclAgent(model, max_steps=4).answer(get_task("multi_turn_base_0"))
    assert result.error == "turn 0: no closing reply after 4 steps with calls"
    assert result.llm_calls == len(model.prompts) == 5
    assert result.calls == [[["pwd()"]] * 5]


async def test_a_last_turn_without_an_end_is_checked_all_the_same() -> None:
    """As in BFCL: it fails a question that was forced to quit by the number of its turns only."""
    task = get_task("multi_turn_base_0")
    last = len(task.turns) - 1

    def reply(task: Task, turn: int, step: int) -> AIMessage:
        calls = solution(task)[turn]
        return always_calling(task, turn, step) if turn == last and step >= len(calls) else solve(task, turn, step)

    result = await BfclAgent(FakeChatModel(reply=reply)).answer(task)
    assert result.error is None
    assert len(result.calls[last]) == 21
    assert len(result.answers) == last
    assert check(task, result.calls) == {"valid": True}


async def test_the_reply_after_the_last_step_may_close_the_turn() -> None:
    task = get_task("multi_turn_base_0")

    def reply(task: Task, turn: int, step: int) -> AIMessage:
        return always_calling(task, turn, step) if step < 20 else AIMessage("Done.")

    result = await BfclAgent(FakeChatModel(reply=reply)).answer(task)
    assert result.error is None
    assert [len(turn) for turn in result.calls] == [20] * len(task.turns)


async def test_a_failing_llm_call_ends_the_question_and_is_told() -> None:
    def reply(task: Task, turn: int, step: int) -> AIMessage:
        if turn == 1:
            raise ConnectionError("no route")
        return solve(task, turn, step)

    result = await BfclAgent(FakeChatModel(reply=reply)).answer(get_task("multi_turn_base_0"))
    assert result.error == "turn 1: ConnectionError: no route"
    assert len(result.answers) == 1
