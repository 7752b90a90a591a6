from __future__ import annotations

import threading

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from nat_dynamo_plugin.telemetry.gauges import Gauge
from nat_dynamo_plugin.telemetry.prometheus import BATCH, MOST_WORKERS, PrometheusExporter
from nat_dynamo_plugin.telemetry.prompt_counts import MAX_VERSIONS, OTHER
from nat_dynamo_plugin.telemetry.record import CallRecord


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_counts_and_times(registry: CollectorRegistry, record: CallRecord) -> None:
    PrometheusExporter(registry)(record)
    value = registry.get_sample_value
    assert value("nat_dynamo_calls_total", {"model": "m", "status": "200"}) == 1
    assert value("nat_dynamo_attempts_total", {"model": "m"}) == 2
    assert value("nat_dynamo_prompt_tokens_total", {"model": "m"}) == 50
    assert value("nat_dynamo_cached_tokens_total", {"model": "m"}) == 32
    assert value("nat_dynamo_completion_tokens_total", {"model": "m"}) == 7
    assert value("nat_dynamo_ttft_seconds_sum", {"model": "m"}) == pytest.approx(0.02)
    assert value("nat_dynamo_call_seconds_count", {"model": "m"}) == 1
    assert value("nat_dynamo_call_seconds_bucket", {"model": "m", "le": "0.25"}) == 1
    assert value("nat_dynamo_call_seconds_bucket", {"model": "m", "le": "0.1"}) == 0
    assert value("nat_dynamo_errors_total", {"model": "m", "error": "200"}) is None


def test_a_failed_call_is_one_of_the_model_that_was_asked_for(registry: CollectorRegistry) -> None:
    exporter = PrometheusExporter(registry)
    exporter(CallRecord(request_model="m", status=500, error="down", error_type="500"))
    exporter(CallRecord(request_model="m", error="ConnectError: no", error_type="ConnectError", attempts=3))
    exporter(CallRecord(request_model="m", status=200, model="m", error="died", error_type="error_in_answer"))
    exporter(CallRecord(status=200))
    value = registry.get_sample_value
    for status, model in (("500", "m"), ("none", "m"), ("200", "m"), ("200", "unknown")):
        assert value("nat_dynamo_calls_total", {"model": model, "status": status}) == 1
    for error in ("500", "ConnectError", "error_in_answer"):
        assert value("nat_dynamo_errors_total", {"model": "m", "error": error}) == 1
    assert value("nat_dynamo_attempts_total", {"model": "m"}) == 5


def test_calls_and_sessions_are_counted_by_worker(registry: CollectorRegistry) -> None:
    exporter = PrometheusExporter(registry)
    for worker, index in ((2**63 + 1, 0), (2**63 + 1, 1), (7, 2), (None, 0)):
        exporter(CallRecord(request_model="m", status=200, worker_id=worker, call_index=index))
    found = {
        (sample.name.removeprefix("nat_dynamo_worker_"), sample.labels["worker"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name.startswith("nat_dynamo_worker_")
    }
    many = str(2**63 + 1)
    assert found == {
        ("calls_total", many): 2,
        ("calls_total", "7"): 1,
        ("sessions_total", many): 1,
        ("sessions_total", "7"): 0,
    }


def test_workers_beyond_the_bound_are_counted_together(registry: CollectorRegistry) -> None:
    exporter = PrometheusExporter(registry)
    for worker in [*range(MOST_WORKERS + 3), 0]:
        exporter(CallRecord(request_model="m", status=200, worker_id=worker))
    value = registry.get_sample_value
    assert value("nat_dynamo_worker_calls_total", {"model": "m", "worker": "other"}) == 3
    assert value("nat_dynamo_worker_calls_total", {"model": "m", "worker": "0"}) == 2


def test_the_wait_at_the_gate_is_observed_where_there_is_a_gate(registry: CollectorRegistry) -> None:
    exporter = PrometheusExporter(registry)
    exporter(CallRecord(request_model="m", status=200))
    exporter(CallRecord(request_model="m", status=200, gate_wait_ms=300.0))
    assert registry.get_sample_value("nat_dynamo_gate_wait_seconds_count", {"model": "m"}) == 1
    assert registry.get_sample_value("nat_dynamo_gate_wait_seconds_sum", {"model": "m"}) == pytest.approx(0.3)


def test_no_label_grows_with_the_questions(registry: CollectorRegistry) -> None:
    exporter = PrometheusExporter(registry)
    for i in range(50):
        exporter(CallRecord(prefix_id=f"q{i}", session_id=f"q{i}", model="m", status=200))
    assert len([s for m in registry.collect() for s in m.samples if s.name == "nat_dynamo_calls_total"]) == 1


def test_any_model_name_can_be_scraped(registry: CollectorRegistry) -> None:
    PrometheusExporter(registry)(CallRecord(request_model='m"\\\n', status=200))
    assert 'model="m\\"\\\\\\n"' in generate_latest(registry).decode()


def test_gauges_of_one_name_and_labels_are_added_up(registry: CollectorRegistry) -> None:
    now = [2.0]
    PrometheusExporter(
        registry,
        lambda: [
            Gauge("waiting", "Who waits.", {"model": "m"}, now[0]),
            Gauge("waiting", "Who waits.", {"model": "m"}, 3.0),
            Gauge("waiting", "Who waits.", {"model": "n", "side": "left"}, 1.0),
            Gauge("busy", "Who does not.", {}, 7.0),
        ],
    )
    value = registry.get_sample_value
    assert value("nat_dynamo_waiting", {"model": "m"}) == 5
    assert value("nat_dynamo_waiting", {"model": "n", "side": "left"}) == 1
    assert value("nat_dynamo_busy", {}) == 7
    now[0] = 0.0
    assert value("nat_dynamo_waiting", {"model": "m"}) == 3
    assert generate_latest(registry).decode().count("# TYPE nat_dynamo_waiting gauge") == 1


def test_a_call_never_waits_for_whoever_adds_up(registry: CollectorRegistry) -> None:
    exporter = PrometheusExporter(registry)
    with exporter._lock:
        sender = threading.Thread(target=lambda: [exporter(CallRecord(status=200)) for _ in range(2 * BATCH)])
        sender.start()
        sender.join(60)
        assert not sender.is_alive()
    assert registry.get_sample_value("nat_dynamo_calls_total", {"model": "unknown", "status": "200"}) == 2 * BATCH


def test_a_lock_that_a_fork_left_held_is_made_anew(registry: CollectorRegistry) -> None:
    exporter = PrometheusExporter(registry)
    exporter._lock.acquire()
    exporter.after_fork()
    exporter(CallRecord(status=200))
    assert registry.get_sample_value("nat_dynamo_calls_total", {"model": "unknown", "status": "200"}) == 1


def test_a_name_that_is_taken_is_an_error() -> None:
    registry = CollectorRegistry(auto_describe=True)  # as the default registry is
    PrometheusExporter(registry)
    with pytest.raises(ValueError, match="nat_dynamo_calls"):
        PrometheusExporter(registry)


def test_prompts_are_told_apart_and_not_without_end(registry: CollectorRegistry) -> None:
    exporter = PrometheusExporter(registry)
    exporter(CallRecord(request_model="m", status=200, prompt_tokens=7))
    assert "prompt_version" not in generate_latest(registry).decode()
    for number in (*range(MAX_VERSIONS + 2), 0):
        version, error = f"v{number}", "gone" if number == 0 else None
        exporter(
            CallRecord(
                request_model="m", status=200, prompt_version=version, prompt_tokens=10, cached_tokens=4, error=error
            )
        )

    def value(name: str, version: str) -> float | None:
        return registry.get_sample_value(name, {"model": "m", "prompt_version": version})

    assert value("nat_dynamo_prompt_calls_total", "v0") == value("nat_dynamo_prompt_errors_total", "v0") == 2
    assert value("nat_dynamo_prompt_calls_total", "v1") == 1 and value("nat_dynamo_prompt_errors_total", "v1") == 0
    assert value("nat_dynamo_prompt_calls_total", OTHER) == 2
    assert value("nat_dynamo_prompt_version_prompt_tokens_total", OTHER) == 20
    assert value("nat_dynamo_prompt_version_cached_tokens_total", "v0") == 8
    assert value("nat_dynamo_prompt_calls_total", f"v{MAX_VERSIONS}") is None
    assert value("nat_dynamo_prompt_calls_total", f"v{MAX_VERSIONS - 1}") == 1
    exporter(CallRecord(request_model="n", status=200, prompt_version=f"v{MAX_VERSIONS}"))
    assert registry.get_sample_value(
        "nat_dynamo_prompt_calls_total", {"model": "n", "prompt_version": f"v{MAX_VERSIONS}"}
    )


def test_an_answer_of_the_cache_is_a_call_and_no_work(registry: CollectorRegistry, record: CallRecord) -> None:
    record.cache, record.attempts, record.saved_usd, record.prompt_version = "exact", 0, 0.25, "v"
    PrometheusExporter(registry)(record)
    value = registry.get_sample_value
    assert value("nat_dynamo_calls_total", {"model": "m", "status": "200"}) == 1
    assert value("nat_dynamo_prompt_tokens_total", {"model": "m"}) == 0
    assert value("nat_dynamo_call_seconds_count", {"model": "m"}) == 0
    assert value("nat_dynamo_saved_usd_total", {"model": "m"}) == 0.25
    version = {"model": "m", "prompt_version": "v"}
    assert value("nat_dynamo_prompt_calls_total", version) == 1
    assert value("nat_dynamo_prompt_version_prompt_tokens_total", version) == 0
    assert value("nat_dynamo_prompt_version_cached_tokens_total", version) == 0


def test_what_only_grows_is_a_counter(registry: CollectorRegistry) -> None:
    counted = [Gauge("cache_hits", "Hits.", {"kind": "exact"}, 2.0, counts=True), Gauge("bytes", "Bytes.", {}, 3.0)]
    PrometheusExporter(registry, lambda: [*counted, *counted])
    text = generate_latest(registry).decode()
    assert (
        "# TYPE nat_dynamo_cache_hits_total counter" in text and 'nat_dynamo_cache_hits_total{kind="exact"} 4.0' in text
    )
    assert "# TYPE nat_dynamo_bytes gauge" in text and "nat_dynamo_bytes 6.0" in text
