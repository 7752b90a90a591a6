"""What one run came to: which runs are scored at all, and what of a failed one may be the server's doing."""

from __future__ import annotations

import math
from typing import Any
from uuid import uuid4

import pytest
from nat.data_models.evaluate_runtime import EvaluationRunOutput, ProfilerResults
from nat.data_models.evaluator import EvalInput, EvalInputItem
from nat.data_models.intermediate_step import IntermediateStep, IntermediateStepPayload, TraceMetadata
from nat.data_models.invocation_node import InvocationNode
from nat.plugins.eval.data_models.evaluator_io import EvalOutput, EvalOutputItem

from nat_dynamo_plugin.evaluators.failures import FailedAnswer
from nat_dynamo_plugin.evaluators.question_latency import QuestionLatencyConfig
from nat_dynamo_plugin.sweep.outcome import RunFailed, RunResult, read_outcome
from nat_dynamo_plugin.sweep.verdict import Objective
from nat_dynamo_plugin.telemetry.record import RECORD_KEY, STEP_NAME, CallRecord

T0 = 1_800_000_000.0
LATENCY = Objective("latency", "latency", "minimize", metric=QuestionLatencyConfig().metric())
REUSE = Objective("reuse", "theirs", "maximize")


def step(event: str, at: float, name: str = "wf", uuid: str = "wf", **more: Any) -> IntermediateStep:
    payload = IntermediateStepPayload(event_type=event, event_timestamp=at, name=name, UUID=uuid, **more)
    node = InvocationNode(function_id="root", function_name="root")
    return IntermediateStep(parent_id="root", function_ancestry=node, payload=payload)


def served(**more: Any) -> CallRecord:
    return CallRecord(**{"worker_id": 7, "prompt_tokens": 100, "cached_tokens": 50, "status": 200, **more})


REFUSED = CallRecord(error="Connection refused", error_type="ConnectError")
WRONG = CallRecord(error="no such argument", status=400)
SILENT = CallRecord(status=200)


def asked(*calls: CallRecord, seconds: float = 2.0, ends: bool = True) -> list[IntermediateStep]:
    steps = [step("WORKFLOW_START", T0)]
    for call in calls:
        uuid, told = str(uuid4()), TraceMetadata(provided_metadata={RECORD_KEY: call.to_dict()})
        steps.append(step("CUSTOM_START", T0, STEP_NAME, uuid))
        steps.append(step("CUSTOM_END", T0 + 0.1, STEP_NAME, uuid, metadata=told))
    return [*steps, step("WORKFLOW_END", T0 + seconds)] if ends else steps


def output(
    *questions: list[IntermediateStep], interrupted: bool = False, raised: Exception | None = None, **scores: Any
) -> EvaluationRunOutput:
    answer = "done" if raised is None else FailedAnswer.of(raised)
    items = [
        EvalInputItem(
            id=k, input_obj="", expected_output_obj="", output_obj=answer, trajectory=steps, full_dataset_entry={}
        )
        for k, steps in enumerate(questions)
    ]
    given = {"latency": 2.0, **scores}
    results = {
        name: EvalOutput(
            average_score=score, eval_output_items=[EvalOutputItem(id=0, score=score, reasoning="")] if score else []
        )
        for name, score in given.items()
        if score is not ...
    }
    return EvaluationRunOutput(
        workflow_output_file=None,
        evaluator_output_files=[],
        workflow_interrupted=interrupted,
        eval_input=EvalInput(eval_input_items=items),
        evaluation_results=list(results.items()),
        profiler_results=ProfilerResults(),
    )


def test_a_run_in_which_all_went_well_is_scored() -> None:
    found = read_outcome(
        output(asked(served(), served()), asked(served(), seconds=3.0), theirs=0.25, beside=0.5), [LATENCY, REUSE], 0.0
    )
    assert found.values == {"latency": 2.0, "reuse": 0.25}
    assert found.samples["latency"] == {"0": [(2.0, 1.0)], "1": [(3.0, 1.0)]}
    assert found.samples["reuse"] == {"0": [(0.25, 1.0)]}
    assert (found.calls, found.others) == (3, {"beside": 0.5})
    assert RunResult.from_dict(found.to_dict()).of([LATENCY]) == found.of([LATENCY])


@pytest.mark.parametrize(
    ("run", "why", "transient"),
    [
        (output(), "the dataset is empty", False),
        (output(asked(served()), interrupted=True), "the workflow failed on a question", False),
        (
            output(asked(served()), raised=ValueError("no plan")),
            "1 of 1 questions failed, the first with: ValueE",
            False,
        ),
        (output(asked(served(), REFUSED), interrupted=True), "1 of 2 LLM calls failed", True),
        (output(asked(served()), asked(served(), ends=False)), "1 of 2 questions never ended", False),
        (output(asked(served()), asked(REFUSED, ends=False)), "1 of 2 LLM calls failed", True),
        (output(asked(), asked()), "no LLM call went through Dynamo", False),
        (output(asked(served(), REFUSED)), "1 of 2 LLM calls failed, the first with: Connection refused", True),
        (output(asked(served(), WRONG)), "1 of 2 LLM calls failed, the first with: no such argument", False),
        (output(asked(WRONG, REFUSED)), "2 of 2 LLM calls failed", False),
        (output(asked(served(), CallRecord(status=400))), "the first with: HTTP status 400", False),
        (output(asked(served(), SILENT)), "1 of 2 LLM calls came back without Dynamo's telemetry", False),
        (output(asked(served()), latency=...), "the evaluator latency failed", False),
        (output(asked(served()), latency=None), "the evaluator latency gave no score, but None", False),
        (output(asked(served()), latency=math.nan), "the evaluator latency gave no score, but nan", False),
    ],
)
def test_a_run_that_says_nothing_about_its_config_is_not_scored(
    run: EvaluationRunOutput, why: str, transient: bool
) -> None:
    with pytest.raises(RunFailed) as caught:
        read_outcome(run, [LATENCY], 0.0)
    assert why in str(caught.value)
    assert caught.value.transient is transient


def test_so_many_calls_may_fail_as_was_said() -> None:
    questions = asked(*[served()] * 9), asked(WRONG)
    found = read_outcome(output(*questions), [LATENCY], 0.1)
    assert found.calls == 10
    assert found.samples["latency"].keys() == {"0"}  # what failed is not fast
    with pytest.raises(RunFailed, match="1 of 10"):
        read_outcome(output(*questions), [LATENCY], 0.09)


def test_a_question_that_failed_beside_calls_that_may_is_not_scored() -> None:
    calls = [*[served()] * 9, REFUSED]
    for run, why in (
        (output(asked(*calls), interrupted=True), "the workflow failed"),
        (output(asked(*calls), raised=ValueError("no plan")), "1 of 1 questions failed"),
        (output(asked(*calls, ends=False)), "1 of 1 questions never ended"),
    ):
        with pytest.raises(RunFailed, match=why) as caught:
            read_outcome(run, [LATENCY], 0.5)
        assert caught.value.transient
