"""Scripted answers for the embedded Dynamo, made from BFCL's ground truth.

Each reply makes one call, and one more reply without a call closes the turn. So a model that answers like
this solves every task, and its requests, prompts and tool results are those of a real agent.
"""

from __future__ import annotations

from collections.abc import Iterator

from nat_dynamo_bfcl.benchmark import Task, task_parameters, tasks
from nat_dynamo_bfcl.calls import ToolCall, flatten_call, parse_call
from nat_dynamo_bfcl.environment import Environment
from nat_dynamo_plugin.local import ScriptedAnswer


def answer_key(task_id: str, turn: int, step: int) -> str:
    """The key of the reply to the `step`th LLM call of a task's turn, both counted from 0."""
    return f"{task_id}/{turn}/{step}"


def solution(task: Task) -> list[list[ToolCall]]:
    """A task's ground truth as single calls by turn: every argument named, calls inside calls made first."""
    parameters = task_parameters(task)
    environment = Environment(task)
    return [
        [single for text in turn for single in flatten_call(parse_call(text, parameters), environment.call)]
        for turn in task.ground_truth
    ]


def closing_sentence(turn: int, calls: list[ToolCall]) -> str:
    """What the scripted model tells the user when a turn is done."""
    if not calls:
        return "This cannot be done with the tools I have."
    return f"Done. I called {', '.join(call.name for call in calls)}."


def scripted_answers() -> Iterator[ScriptedAnswer]:
    """Every reply to every task of the benchmark."""
    for task in tasks().values():
        for turn, calls in enumerate(solution(task)):
            for step, call in enumerate(calls):
                yield ScriptedAnswer(answer_key(task.id, turn, step), tool_calls=((call.name, call.arguments),))
            yield ScriptedAnswer(answer_key(task.id, turn, len(calls)), closing_sentence(turn, calls))
