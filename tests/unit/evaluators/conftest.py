"""Synthetic trajectories, built from NAT's own classes and passed through its own dump and validation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from nat.data_models.evaluator import EvalInput, EvalInputItem
from nat.data_models.intermediate_step import (
    IntermediateStep,
    IntermediateStepPayload,
    IntermediateStepType,
    TraceMetadata,
)
from nat.data_models.invocation_node import InvocationNode

from nat_dynamo_plugin.telemetry.record import RECORD_KEY, STEP_NAME, CallRecord

T0 = 1_800_000_000.0


def step(event_type: str, at: float, *, name: str = "wf", uuid: str = "wf", **payload: Any) -> IntermediateStep:
    return IntermediateStep(
        parent_id="root",
        function_ancestry=InvocationNode(function_id="root", function_name="root"),
        payload=IntermediateStepPayload(
            event_type=IntermediateStepType(event_type), event_timestamp=at, name=name, UUID=uuid, **payload
        ),
    )


def call_steps(record: Any, at: float = T0, *, as_model: bool = True) -> list[IntermediateStep]:
    """The step pair of one call, with the record (a `CallRecord`, or anything at all) in its END step."""
    uuid = str(uuid4())
    raw = record.to_dict() if isinstance(record, CallRecord) else record
    provided = {RECORD_KEY: raw}
    metadata = TraceMetadata(provided_metadata=provided) if as_model else {"provided_metadata": provided}
    return [
        step("CUSTOM_START", at, name=STEP_NAME, uuid=uuid),
        step("CUSTOM_END", at + 0.1, name=STEP_NAME, uuid=uuid, metadata=metadata),
    ]


def workflow(*inner: IntermediateStep, start: float = T0, seconds: float = 2.0) -> list[IntermediateStep]:
    return [step("WORKFLOW_START", start), *inner, step("WORKFLOW_END", start + seconds)]


def question(*calls: Any, start: float = T0, seconds: float = 2.0) -> list[IntermediateStep]:
    return workflow(*(s for call in calls for s in call_steps(call, start)), start=start, seconds=seconds)


def as_nat_eval_sees(steps: list[IntermediateStep]) -> list[IntermediateStep]:
    """What `nat eval` hands to evaluators: dumped while running, validated afterwards."""
    return [IntermediateStep.model_validate(s.model_dump()) for s in steps]


def eval_input(**questions: list[IntermediateStep]) -> EvalInput:
    return EvalInput(
        eval_input_items=[
            EvalInputItem(
                id=name,
                input_obj=f"question {name}",
                expected_output_obj="",
                output_obj="done",
                trajectory=as_nat_eval_sees(steps),
                full_dataset_entry={},
            )
            for name, steps in questions.items()
        ]
    )


def served(**fields: Any) -> CallRecord:
    """A call that Dynamo answered in full."""
    known: dict[str, Any] = {
        "prefix_id": "q",
        "worker_id": 7,
        "prompt_tokens": 100,
        "cached_tokens": 50,
        "completion_tokens": 10,
        "server_ttft_ms": 20.0,
        "client_ttft_ms": 25.0,
        "status": 200,
    }
    return CallRecord(**(known | fields))


@pytest.fixture(scope="session")
def build() -> SimpleNamespace:
    """The builders of this file."""
    return SimpleNamespace(
        T0=T0,
        step=step,
        call_steps=call_steps,
        workflow=workflow,
        question=question,
        as_nat_eval_sees=as_nat_eval_sees,
        eval_input=eval_input,
        served=served,
    )
