from __future__ import annotations

import json
from typing import Any

import pytest
from nat.data_models.evaluator import EvalInput, EvalInputItem
from nat.data_models.intermediate_step import (
    IntermediateStep,
    IntermediateStepPayload,
    IntermediateStepType,
    TraceMetadata,
)
from nat.data_models.invocation_node import InvocationNode

from nat_dynamo_bfcl.answers import solution
from nat_dynamo_bfcl.benchmark import get_task
from nat_dynamo_bfcl.evaluator import BfclAccuracy
from nat_dynamo_bfcl.result import Result
from nat_dynamo_plugin.telemetry.record import RECORD_KEY, STEP_NAME, CallRecord


def solved(task_id: str) -> Result:
    calls = [[[call.render()] for call in turn] for turn in solution(get_task(task_id))]
    return Result(task_id, calls=calls, answers=["Done."] * len(calls), llm_calls=9)


async def judge(*outputs: Any) -> Any:
    items = [
        EvalInputItem(id=index, input_obj="", expected_output_obj="", output_obj=output, full_dataset_entry={})
        for index, output in enumerate(outputs)
    ]
    return await BfclAccuracy().evaluate(EvalInput(eval_input_items=items))


async def test_the_ground_truth_scores_one() -> None:
    output = await judge(solved("multi_turn_base_0").to_json())
    assert output.average_score == 1.0
    assert output.metric.problem is None
    assert output.eval_output_items[0].reasoning == {"task": "multi_turn_base_0", "llm_calls": 9, "executed_calls": 10}


async def test_a_wrong_call_scores_zero_and_the_reason_is_bfcls() -> None:
    wrong = solved("multi_turn_base_0")
    wrong.calls[0][1] = ["mkdir(dir_name='tmp')"]
    output = await judge(wrong.to_json())
    [item] = output.eval_output_items
    assert item.score == 0.0
    assert item.reasoning["error_type"] == "multi_turn:instance_state_mismatch"
    assert "GorillaFileSystem does not match the state" in item.reasoning["error"]
    assert "tmp" in item.reasoning["details"]["differences"]
    json.dumps(item.reasoning)


async def test_a_missing_result_scores_zero_and_the_reason_is_bfcls() -> None:
    wrong = solved("multi_turn_base_0")
    wrong.calls[1].pop()  # the search: it changes nothing, only its result is missed
    [item] = (await judge(wrong.to_json())).eval_output_items
    assert item.score == 0.0
    assert item.reasoning["error_type"] == "multi_turn:execution_response_mismatch"
    assert "turn 1" in item.reasoning["error"]


async def test_a_question_that_ended_early_scores_zero_with_its_error() -> None:
    wrong = solved("multi_turn_base_0")
    wrong.error = "turn 1: ConnectionError: no route"
    [item] = (await judge(wrong.to_json())).eval_output_items
    assert (item.score, item.reasoning["error"]) == (0.0, "turn 1: ConnectionError: no route")


async def test_a_question_that_was_not_run_has_no_score() -> None:
    output = await judge(None, "", solved("multi_turn_base_1").to_json())
    assert [item.score for item in output.eval_output_items] == [None, None, 1.0]
    assert output.average_score == 1.0
    assert output.metric.failures == {"not_run": 2}
    assert output.metric.problem == "2 of 3 questions failed (not_run 2)"


async def test_a_question_with_a_failed_call_has_no_score_whatever_the_agent_made_of_it() -> None:
    record = CallRecord(status=200, error="half a text", error_type="cut_short")
    payload = IntermediateStepPayload(
        event_type=IntermediateStepType.CUSTOM_END,
        name=STEP_NAME,
        metadata=TraceMetadata(provided_metadata={RECORD_KEY: record.to_dict()}),
    )
    step = IntermediateStep(
        parent_id="root",
        function_ancestry=InvocationNode(function_id="root", function_name="root"),
        payload=payload,
    )
    item = EvalInputItem(
        id=0,
        input_obj="",
        expected_output_obj="",
        output_obj=solved("multi_turn_base_1").to_json(),
        trajectory=[step],
        full_dataset_entry={},
    )
    output = await BfclAccuracy().evaluate(EvalInput(eval_input_items=[item]))
    assert [one.score for one in output.eval_output_items] == [None]
    assert (str(output.average_score), output.metric.failures) == ("-", {"cut_short": 1})


async def test_the_average_is_not_rounded() -> None:
    right = solved("multi_turn_base_1").to_json()
    output = await judge(right, right, "nothing")
    assert output.average_score == pytest.approx(2 / 3, abs=1e-12)
    assert output.metric.problem.startswith("1 not solved, the first: 2: not an output of bfcl_agent")


async def test_no_questions_have_no_average() -> None:
    assert str((await judge()).average_score) == "-"


async def test_an_output_that_is_none_of_the_agents_is_an_error_of_that_question_alone() -> None:
    output = await judge("Hello!", solved("multi_turn_base_1").to_json())
    assert [item.score for item in output.eval_output_items] == [0.0, 1.0]
    assert "not an output of bfcl_agent" in output.eval_output_items[0].reasoning["error"]
