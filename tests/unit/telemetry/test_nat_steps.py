from __future__ import annotations

from nat.builder.context import Context, ContextState
from nat.data_models.intermediate_step import IntermediateStep, IntermediateStepType

from nat_dynamo_plugin.evaluators.records import records_from_trajectory
from nat_dynamo_plugin.telemetry import nat_steps
from nat_dynamo_plugin.telemetry.record import CallRecord


def test_a_pair_of_steps_carries_the_record(record: CallRecord) -> None:
    steps: list[IntermediateStep] = []
    run = ContextState.get().workflow_run_id.set("r")
    subscription = Context.get().intermediate_step_manager.subscribe(steps.append)
    try:
        stack = list(ContextState.get().active_span_id_stack.get())
        nat_steps.export(record)
        assert ContextState.get().active_span_id_stack.get() == stack
    finally:
        subscription.unsubscribe()
        ContextState.get().workflow_run_id.reset(run)
    assert [s.event_type for s in steps] == [IntermediateStepType.CUSTOM_START, IntermediateStepType.CUSTOM_END]
    assert (steps[1].span_event_timestamp, steps[1].event_timestamp) == (100.0, 100.25)
    assert records_from_trajectory(steps) == [record]


def test_outside_a_run_nobody_listens(record: CallRecord) -> None:
    steps: list[IntermediateStep] = []
    subscription = Context.get().intermediate_step_manager.subscribe(steps.append)
    nat_steps.export(record)
    subscription.unsubscribe()
    assert steps == []


def test_exporting_leaves_no_subscription_behind(record: CallRecord) -> None:
    run = ContextState.get().workflow_run_id.set("r")
    try:
        observers = ContextState.get().event_stream.get()._observers
        before = list(observers)
        for _ in range(10):
            nat_steps.export(record)
        assert list(observers) == before
    finally:
        ContextState.get().workflow_run_id.reset(run)
