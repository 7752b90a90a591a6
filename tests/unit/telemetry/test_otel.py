from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from nat_dynamo_plugin.telemetry import names
from nat_dynamo_plugin.telemetry.otel import OpenTelemetryExporter, _instrument
from nat_dynamo_plugin.telemetry.record import CallRecord


def points(*records: CallRecord) -> dict[str, list[Any]]:
    """The data points of each metric after these records."""
    reader = InMemoryMetricReader()
    exporter = OpenTelemetryExporter(MeterProvider(metric_readers=[reader]))
    for record in records:
        exporter(record)
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def value(point: Any) -> float:
    return float(getattr(point, "sum", getattr(point, "value", None)))


@pytest.fixture(autouse=True)
def no_opt_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(names.OPT_IN_VARIABLE, raising=False)


def test_the_names_that_are_the_default(record: CallRecord, caplog: pytest.LogCaptureFixture) -> None:
    found = points(record)
    assert {name: sorted(map(value, found[name])) for name in found} == {
        "gen_ai.client.operation.duration": [0.25],
        "gen_ai.client.operation.time_to_first_chunk": [0.03],
        "gen_ai.client.token.usage": [7, 50],
        "gen_ai.server.time_to_first_token": [0.02],
        "nat_dynamo.cached_tokens": [32],
    }
    kinds = {p.attributes["gen_ai.token.type"]: p.sum for p in found["gen_ai.client.token.usage"]}
    assert kinds == {"input": 50, "output": 7}
    assert not caplog.records


@pytest.mark.parametrize("chosen", ["gen_ai_latest_experimental", "http/dup, gen_ai_latest_experimental"])
def test_the_latest_names_come_instead(chosen: str, record: CallRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(names.OPT_IN_VARIABLE, chosen)
    found = points(record)
    assert {name: sorted(map(value, found[name])) for name in found} == {
        "gen_ai.client.inference.duration": [0.25],
        "gen_ai.client.inference.time_to_first_chunk": [0.03],
        "gen_ai.client.inference.operation.input_tokens": [50],
        "gen_ai.client.inference.operation.output_tokens": [7],
        "gen_ai.client.inference.usage.input_tokens": [50],
        "gen_ai.client.inference.usage.output_tokens": [7],
        "gen_ai.client.inference.usage.cache_read.input_tokens": [32],
        "gen_ai.server.time_to_first_token": [0.02],
    }


@pytest.mark.parametrize("chosen", ["", "http", "gen_ai", "gen_ai_latest_experimental_not"])
def test_another_choice_changes_nothing(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(names.OPT_IN_VARIABLE, chosen)
    assert names.metrics() == names.V1_41


@pytest.mark.parametrize("chosen", ["", "gen_ai_latest_experimental"])
def test_histograms_have_buckets_where_values_are(
    chosen: str, record: CallRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(names.OPT_IN_VARIABLE, chosen)
    found = points(record)
    bounds = {name: tuple(p[0].explicit_bounds) for name, p in found.items() if hasattr(p[0], "explicit_bounds")}
    assert len(bounds) == 4 if not chosen else 5
    for name, edges in bounds.items():
        tokens = "token" in name and "time" not in name
        assert edges[:3] == ((1, 4, 16) if tokens else (0.001, 0.005, 0.01) if "server" in name else (0.01, 0.02, 0.04))


def test_attributes_of_an_answered_call(record: CallRecord) -> None:
    assert dict(points(record)["gen_ai.client.operation.duration"][0].attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "nvidia.dynamo",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m-2026",
        "server.address": "dynamo",
        "server.port": 8000,
    }


def test_attributes_of_a_failed_call() -> None:
    failed = CallRecord(
        api="completions",
        request_model="m",
        provider="openai",
        origin="https://api.example",
        client_total_ms=1.0,
        error="ConnectError: no",
        error_type="ConnectError",
    )
    assert dict(points(failed)["gen_ai.client.operation.duration"][0].attributes) == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "server.address": "api.example",
        "server.port": 443,
        "error.type": "ConnectError",
    }


@pytest.mark.parametrize(("record", "kind"), [(CallRecord(status=529), "529"), (CallRecord(error="?"), "_OTHER")])
def test_the_kind_of_an_error(record: CallRecord, kind: str) -> None:
    record.client_total_ms = 1.0
    assert points(record)["gen_ai.client.operation.duration"][0].attributes["error.type"] == kind


@pytest.mark.parametrize("origin", ["", "nonsense", "http://", "http://[", "unix://x", "http://h:99999999"])
def test_an_origin_that_is_none_is_left_out(origin: str) -> None:
    record = CallRecord(origin=origin, client_total_ms=1.0)
    assert "server.address" not in points(record)["gen_ai.client.operation.duration"][0].attributes


def test_what_is_not_known_is_not_recorded() -> None:
    assert set(points(CallRecord(client_total_ms=1.0))) == {"gen_ai.client.operation.duration"}


def test_an_api_that_takes_no_advice_is_given_none() -> None:
    class Old:
        def create_histogram(self, name: str, unit: str = "", description: str = "") -> Any:
            return type("Histogram", (), {"record": lambda self, v, a: recorded.append((name, unit, v))})()

    recorded: list[Any] = []
    _instrument(Old(), names.V1_41[0])(0.5, {})  # type: ignore[arg-type]
    assert recorded == [("gen_ai.client.operation.duration", "s", 0.5)]


def test_follows_a_provider_that_is_set_later(record: CallRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = OpenTelemetryExporter()
    seen: list[float] = []
    monkeypatch.setitem(exporter._record, "gen_ai.client.operation.duration", lambda v, a: seen.append(v))
    exporter(record)
    assert seen == []
    provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    exporter(record)
    assert seen == [0.25]
