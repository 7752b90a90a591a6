from __future__ import annotations

from nat_dynamo_bfcl.answers import answer_key, scripted_answers, solution
from nat_dynamo_bfcl.benchmark import get_task, tasks


def test_there_is_an_answer_to_every_llm_call() -> None:
    answers = list(scripted_answers())
    keys = [answer.key for answer in answers]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {
        answer_key(task.id, turn, step)
        for task in tasks().values()
        for turn, calls in enumerate(solution(task))
        for step in range(len(calls) + 1)
    }
    # Calls of the ground truth, and one closing sentence a turn.
    assert sum(len(answer.tool_calls) for answer in answers) == 1142
    assert sum(not answer.tool_calls for answer in answers) == 734
    assert all(bool(answer.content) != bool(answer.tool_calls) for answer in answers)


def test_a_turn_without_calls_is_declined() -> None:
    task = get_task("multi_turn_base_167")
    assert solution(task)[4] == []
    key = answer_key(task.id, 4, 0)
    answer = next(answer for answer in scripted_answers() if answer.key == key)
    assert answer.content == "This cannot be done with the tools I have."
