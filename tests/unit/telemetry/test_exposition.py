"""Metrics as text, of one process and of several."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from nat_dynamo_plugin.telemetry.exposition import Exposition, Share
from nat_dynamo_plugin.telemetry.gauges import Gauge
from nat_dynamo_plugin.telemetry.prometheus import PrometheusExporter
from nat_dynamo_plugin.telemetry.record import CallRecord

CHILD = """
import sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from nat_dynamo_plugin.telemetry.exposition import Share
from nat_dynamo_plugin.telemetry.gauges import Gauge
from nat_dynamo_plugin.telemetry.prometheus import PrometheusExporter
from nat_dynamo_plugin.telemetry.record import CallRecord
registry = CollectorRegistry()
exporter = PrometheusExporter(registry, lambda: [Gauge("active_prefixes", "h", {"model": "a"}, 2.0)])
for _ in range(int(sys.argv[2])):
    exporter(CallRecord(request_model="a", status=200, prompt_tokens=100, cached_tokens=60, server_ttft_ms=40.0))
Share(Path(sys.argv[1]), registry).write()
print("written", flush=True)
sys.stdin.readline()
"""

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: bytes) -> Samples:
    families = text_string_to_metric_families(text.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def of(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"nat_dynamo_{name}", tuple(sorted(labels.items()))))


def call(**values: object) -> CallRecord:
    return CallRecord(request_model="a", status=200, **values)  # type: ignore[arg-type]


def test_one_process_says_what_its_registry_has() -> None:
    registry = CollectorRegistry()
    PrometheusExporter(registry, lambda: ())(call(prompt_tokens=7))
    Counter("mine", "h", registry=registry).inc()
    exposition = Exposition(registry=registry)
    exposition.start()
    text, kind = exposition.text("")
    found = samples(text)
    assert of(found, "prompt_tokens_total", model="a") == 7 and found["mine_total", ()] == 1
    assert kind.startswith("text/plain")
    assert exposition.text("application/openmetrics-text; version=1.0.0")[1].startswith("application/openmetrics-text")
    exposition.stop()


def test_what_is_shared_is_what_the_registry_has(tmp_path: Path) -> None:
    """Buckets, sums and counts come out of the files as they went in."""
    registry = CollectorRegistry()
    gauges = [Gauge("active_prefixes", "h", {"model": "a"}, 2.0)]
    exporter = PrometheusExporter(registry, lambda: gauges)
    for ms in (4.0, 40.0, 41.0, 3000.0, 1e9):
        exporter(call(server_ttft_ms=ms, client_total_ms=2 * ms, prompt_tokens=9))
    exporter(CallRecord(request_model="b", status=529, error="busy", kind="overload"))
    exposition = Exposition(tmp_path, registry)
    exposition.start()
    try:
        assert samples(exposition.text("")[0]) == samples(Exposition(registry=registry).text("")[0])
        exporter(call(server_ttft_ms=4.0))
        assert samples(exposition.text("")[0]) == samples(Exposition(registry=registry).text("")[0])
        gauges.clear()
        assert of(samples(exposition.text("")[0]), "active_prefixes", model="a") == 0
    finally:
        exposition.stop()


def test_several_processes_are_added_up_and_gauges_go_with_theirs(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry, lambda: [Gauge("active_prefixes", "h", {"model": "a"}, 1.0)])
    exporter(call(prompt_tokens=100, server_ttft_ms=400.0))
    exposition = Exposition(tmp_path, registry)
    exposition.start()
    argv = [sys.executable, "-c", CHILD, str(tmp_path)]
    children = [
        subprocess.Popen([*argv, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for count in (2, 3)
    ]
    try:
        for child in children:
            assert child.stdout is not None and child.stdout.readline() == "written\n"
        found = samples(exposition.text("")[0])
        assert of(found, "calls_total", model="a", status="200") == 6
        assert of(found, "prompt_tokens_total", model="a") == 600
        assert of(found, "ttft_seconds_bucket", model="a", le="0.05") == 5
        assert of(found, "ttft_seconds_count", model="a") == 6
        assert of(found, "ttft_seconds_sum", model="a") == pytest.approx(0.6)
        assert of(found, "active_prefixes", model="a") == 5
        children[0].kill()
        children[0].wait()
        found = samples(exposition.text("")[0])
        assert of(found, "calls_total", model="a", status="200") == 6  # what was counted does not go down
        assert of(found, "active_prefixes", model="a") == 3
    finally:
        exposition.stop()
        for child in children:
            child.kill()
            child.communicate()


def test_others_metrics_are_not_written_twice(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    Counter("mine", "h", registry=registry).inc()
    PrometheusExporter(registry, lambda: ())(call())
    Share(tmp_path, registry).write()
    found = samples(Exposition(tmp_path, registry).text("")[0])
    assert ("mine_total", ()) not in found and of(found, "calls_total", model="a", status="200") == 1


def test_it_writes_by_itself_and_once_more_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nat_dynamo_plugin.telemetry import exposition

    monkeypatch.setattr(exposition, "WRITE_S", 0.001)
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry, lambda: ())
    share = Share(tmp_path, registry)
    share.start()
    exporter(call())
    other = Exposition(tmp_path, registry)  # one that shares nothing itself
    while of(samples(other.text("")[0]), "calls_total", model="a", status="200") != 1:
        continue
    monkeypatch.setattr(exposition, "WRITE_S", 3600.0)
    exporter(call())
    share.stop()
    assert of(samples(other.text("")[0]), "calls_total", model="a", status="200") == 2
    assert all(f"_{os.getpid()}-" in file.name for file in tmp_path.iterdir())


def test_a_file_is_found_only_when_it_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nat_dynamo_plugin.telemetry import exposition

    found: list[list[Path]] = []

    class Watched(exposition.MmapedDict):  # type: ignore[misc,name-defined]
        def __init__(self, name: str) -> None:
            super().__init__(name)
            found.append(list(tmp_path.glob("*.db")))

    monkeypatch.setattr(exposition, "MmapedDict", Watched)
    registry = CollectorRegistry()
    PrometheusExporter(registry, lambda: ())(call())
    share = Share(tmp_path, registry)
    share.write()
    assert found[0] == [] and len(list(tmp_path.glob("*.db"))) == len(found) > 1
