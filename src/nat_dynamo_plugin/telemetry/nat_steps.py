"""Records as NAT intermediate steps, so that saved trajectories, evaluators and NAT's own exporters have them."""

from __future__ import annotations

from nat.builder.context import Context, ContextState
from nat.data_models.intermediate_step import (
    IntermediateStepPayload,
    IntermediateStepType,
    StreamEventData,
    TraceMetadata,
)
from nat.utils.providers import generate_id

from nat_dynamo_plugin.telemetry.exporters import Emit
from nat_dynamo_plugin.telemetry.record import RECORD_KEY, STEP_NAME, CallRecord

_STATE = ContextState.get()


def export(record: CallRecord) -> None:
    """Push a CUSTOM_START/CUSTOM_END pair for this call; nothing outside a workflow run, where nobody listens."""
    if _STATE.workflow_run_id.get() is None:
        return
    context = Context.get()
    steps = context.intermediate_step_manager
    step_id = generate_id()
    ended_at = record.started_at + (record.client_total_ms or 0.0) / 1000.0
    steps.push_intermediate_step(
        IntermediateStepPayload(
            UUID=step_id,
            event_type=IntermediateStepType.CUSTOM_START,
            event_timestamp=record.started_at,
            name=STEP_NAME,
        )
    )
    steps.push_intermediate_step(
        IntermediateStepPayload(
            UUID=step_id,
            event_type=IntermediateStepType.CUSTOM_END,
            event_timestamp=ended_at,
            span_event_timestamp=record.started_at,
            name=STEP_NAME,
            data=StreamEventData(),
            metadata=TraceMetadata(provided_metadata={RECORD_KEY: record.to_dict()}),
        )
    )


def exporter() -> Emit:
    """The exporter to NAT's intermediate steps."""
    return export
