from __future__ import annotations

from typing import Any

import pytest
from nat.builder.context import Context, ContextState
from nat.data_models.intermediate_step import IntermediateStep, IntermediateStepType
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from nat_dynamo_plugin.admission.gate import Gate
from nat_dynamo_plugin.admission.limits import FILL, AdaptiveLimit
from nat_dynamo_plugin.evaluators.records import records_from_trajectory
from nat_dynamo_plugin.telemetry import nat_steps
from nat_dynamo_plugin.telemetry import record as telemetry
from nat_dynamo_plugin.telemetry.defaults import default_exporters
from nat_dynamo_plugin.telemetry.otel import OpenTelemetryExporter
from nat_dynamo_plugin.telemetry.prometheus import PrometheusExporter
from nat_dynamo_plugin.telemetry.record import CallRecord

RECORD = CallRecord(
    prefix_id="q",
    session_id="q",
    function_path=("wf",),
    hints={"osl": 9},
    model="m",
    status=200,
    started_at=100.0,
    worker_id=2**63 + 5,
    prompt_tokens=50,
    cached_tokens=32,
    completion_tokens=7,
    server_ttft_ms=20.0,
    client_total_ms=250.0,
)


class TestNatSteps:
    def test_a_pair_of_steps_carries_the_record(self) -> None:
        steps: list[IntermediateStep] = []
        run = ContextState.get().workflow_run_id.set("r")
        subscription = Context.get().intermediate_step_manager.subscribe(steps.append)
        try:
            stack = list(ContextState.get().active_span_id_stack.get())
            nat_steps.export(RECORD)
            assert ContextState.get().active_span_id_stack.get() == stack
        finally:
            subscription.unsubscribe()
            ContextState.get().workflow_run_id.reset(run)
        assert [s.event_type for s in steps] == [IntermediateStepType.CUSTOM_START, IntermediateStepType.CUSTOM_END]
        assert (steps[1].span_event_timestamp, steps[1].event_timestamp) == (100.0, 100.25)
        assert records_from_trajectory(steps) == [RECORD]

    def test_outside_a_run_nobody_listens(self) -> None:
        steps: list[IntermediateStep] = []
        subscription = Context.get().intermediate_step_manager.subscribe(steps.append)
        nat_steps.export(RECORD)
        subscription.unsubscribe()
        assert steps == []


class TestPrometheus:
    def test_what_gates_hold_back_is_a_sum_over_the_gates_of_a_model(self) -> None:
        registry = CollectorRegistry()
        PrometheusExporter(registry)
        gates = [Gate(2, model="gated"), Gate(3, model="gated"), Gate(AdaptiveLimit(), model="auto")]
        for gate in gates:
            for number in range(4):
                # Those that wait are left there; a blocking call in a thread of its own would wait for ever.
                gate._ask(gate.place(f"q{number}", body=b'{"prompt": "%s"}' % (b"word " * 80)))
        gates[2].on_capacity(1000)

        def value(name: str, model: str) -> float | None:
            return registry.get_sample_value(f"nat_dynamo_{name}", {"model": model})

        assert value("active_prefixes", "gated") == 5
        assert value("waiting_prefixes", "gated") == 3
        assert value("max_active_prefixes", "gated") == 5
        assert value("max_active_tokens", "gated") is None
        # Four times the same prompt, of about 100 tokens.
        assert value("active_prefixes", "auto") == 4
        assert value("active_tokens", "auto") == pytest.approx(100, abs=2)
        assert value("max_active_prefixes", "auto") is None
        assert value("max_active_tokens", "auto") == FILL * 1000

    def test_counts_and_times(self) -> None:
        registry = CollectorRegistry()
        exporter = PrometheusExporter(registry)
        exporter(RECORD)
        exporter(CallRecord(status=None, error="ConnectError"))
        value = registry.get_sample_value
        assert value("nat_dynamo_calls_total", {"model": "m", "status": "200"}) == 1
        assert value("nat_dynamo_calls_total", {"model": "unknown", "status": "none"}) == 1
        assert value("nat_dynamo_prompt_tokens_total", {"model": "m"}) == 50
        assert value("nat_dynamo_cached_tokens_total", {"model": "m"}) == 32
        assert value("nat_dynamo_ttft_seconds_sum", {"model": "m"}) == pytest.approx(0.02)
        assert value("nat_dynamo_call_seconds_count", {"model": "m"}) == 1

    def test_no_label_grows_with_the_questions(self) -> None:
        registry = CollectorRegistry()
        exporter = PrometheusExporter(registry)
        for i in range(50):
            exporter(CallRecord(prefix_id=f"q{i}", session_id=f"q{i}", model="m", status=200))
        assert len([s for m in registry.collect() for s in m.samples if s.name == "nat_dynamo_calls_total"]) == 1


def test_opentelemetry() -> None:
    reader = InMemoryMetricReader()
    exporter = OpenTelemetryExporter(MeterProvider(metric_readers=[reader]))
    exporter(RECORD)
    data = reader.get_metrics_data()
    assert data is not None
    found: dict[str, Any] = {
        metric.name: [
            (p.attributes.get("gen_ai.token.type"), getattr(p, "sum", getattr(p, "value", None)))
            for p in metric.data.data_points
        ]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert found["gen_ai.client.operation.duration"] == [(None, 0.25)]
    assert found["gen_ai.server.time_to_first_token"] == [(None, 0.02)]
    assert sorted(found["gen_ai.client.token.usage"]) == [("input", 50), ("output", 7)]
    assert found["nat_dynamo.cached_tokens"] == [(None, 32)]


def test_opentelemetry_follows_a_provider_that_is_set_later(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = OpenTelemetryExporter()
    seen: list[float] = []
    monkeypatch.setattr(exporter, "_duration", type("Seen", (), {"record": lambda self, v, a: seen.append(v)})())
    exporter(RECORD)
    assert seen == []
    provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    exporter(RECORD)
    assert seen == [0.25]


def test_installed_libraries_are_found() -> None:
    exporters = default_exporters()
    assert exporters[0] is nat_steps.export
    assert {type(e).__name__ for e in exporters[1:]} == {"PrometheusExporter", "OpenTelemetryExporter"}


def test_exporters_can_be_chosen_and_added() -> None:
    first: list[CallRecord] = []
    second: list[CallRecord] = []
    telemetry.set_exporters([first.append])
    try:
        telemetry.add_exporter(second.append)
        telemetry.emit(RECORD)
    finally:
        telemetry.set_exporters(None)
    assert first == second == [RECORD]
