"""The dashboard, the alert rules and the scrape configs, against what a real Dynamo and a real exporter expose."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from nat_dynamo_plugin import CallRecord, DynamoPrefixContext
from nat_dynamo_plugin.admission.gauges import described as of_gates
from nat_dynamo_plugin.admission.gauges import gate_gauges
from nat_dynamo_plugin.cache.figures import described as of_caches
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig
from nat_dynamo_plugin.service import make_service
from nat_dynamo_plugin.telemetry.gauges import Gauge
from nat_dynamo_plugin.telemetry.prometheus import PrometheusExporter

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
ADDED = {"model", "namespace", "pod", "job", "instance", "le"}
"""Labels that expressions may use besides those that are exposed: Prometheus and Kubernetes add them."""


@pytest.fixture(scope="module")
def monitoring() -> ModuleType:
    spec = importlib.util.spec_from_file_location("monitoring", ROOT / "scripts" / "monitoring.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["monitoring"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def free_port() -> int:
    """One that Dynamo takes for its system server, which reads it as a signed 16-bit number (1.6.0)."""
    for port in range(20000, 32767):
        with socket.socket() as server:
            try:
                server.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")


def scrape(url: str) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
        text: str = answer.read().decode()
    return text


async def calls(
    dynamo: LocalDynamo, bound: str | int, registry: CollectorRegistry, exporter: PrometheusExporter
) -> str:
    """What is exposed while a question is under way."""
    config = DynamoModelConfig.model_validate(
        {
            "model_name": dynamo.model_name,
            "base_url": dynamo.base_url,
            "admission": {"max_active_prefixes": bound},
        }
    )
    service = make_service(config, emit_record=exporter)
    try:
        async with service.http_clients() as clients:
            client = clients.async_openai()
            with DynamoPrefixContext.scope(f"question-{bound}"):
                messages: Any = [{"role": "user", "content": "hello " * 400}]
                await client.chat.completions.create(model=dynamo.model_name, messages=messages, max_tokens=8)
                return generate_latest(registry).decode()
    finally:
        service.close()


def gauges() -> Iterator[Gauge]:
    """Those of the gates, and those that are exposed only in a state that this run is not in, as they are described."""
    here = list(gate_gauges())
    yield from here
    named = {one.name for one in here}
    yield from (one for one in (*of_gates(), *of_caches()) if one.name not in named)


async def run() -> str:
    """Text that a frontend, the workers' process and our exporter expose, after calls under both kinds of bounds."""
    registry, port = CollectorRegistry(), free_port()
    exporter = PrometheusExporter(registry, gauges=gauges)
    exporter(CallRecord(request_model="m", status=529, error="full", kind="overload"))
    async with AsyncExitStack() as stack:
        local = LocalDynamoConfig(workers=2, queue_threshold=0, env={"DYN_SYSTEM_PORT": str(port)})
        dynamo = await stack.enter_async_context(LocalDynamo(local))
        texts = [await calls(dynamo, bound, registry, exporter) for bound in ("auto", 8)]
        frontend = await asyncio.to_thread(scrape, dynamo.base_url.removesuffix("/v1") + "/metrics")
        workers = await asyncio.to_thread(scrape, f"http://127.0.0.1:{port}/metrics")
    return "\n".join((*texts, frontend, workers, ""))


@pytest.fixture(scope="module")
def text() -> str:
    return _without_repeats(asyncio.run(run()))


@pytest.fixture(scope="module")
def exposed(text: str) -> dict[str, set[str]]:
    """Labels by series, of everything that is exposed."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def _without_repeats(text: str) -> str:
    """One family of a name: the frontend and the workers have some of the same ones."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return "\n".join([*dict.fromkeys(lines), ""])


def test_every_expression_reads_what_is_exposed(monitoring: ModuleType, exposed: dict[str, set[str]]) -> None:
    read: set[str] = set()
    for expression in monitoring.expressions():
        named = monitoring.metrics_in(expression)
        assert named, expression
        assert named <= set(exposed), (named - set(exposed), expression)
        known = ADDED | set().union(*(exposed[name] for name in named))
        for labels in re.findall(r"\bby\s*\(([^)]*)\)", expression):
            assert {label.strip() for label in labels.split(",")} <= known, expression
        for labels in re.findall(r"\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*[=!]", labels)) <= known, expression
        read |= named
    assert len(read) > 20


def test_all_of_ours_is_exposed_in_that_run(monitoring: ModuleType, exposed: dict[str, set[str]]) -> None:
    """Else the run would not show what an expression reads."""
    for family in monitoring.families():
        assert set(family.series) <= set(exposed), family.name
        assert set(family.labels) <= set().union(*(exposed[name] for name in family.series)), family.name


def test_calls_are_observed_at_the_gate(text: str) -> None:
    """Those that need not wait too, or a quantile would be one of those that waited."""
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in ("nat_dynamo_gate_wait_seconds_count", "nat_dynamo_call_seconds_count")
        and sample.labels["model"] != "m"
    }
    assert samples["nat_dynamo_gate_wait_seconds_count"] == samples["nat_dynamo_call_seconds_count"] > 0


def test_the_variable_of_the_dashboard_is_a_label_there_is(
    monitoring: ModuleType, exposed: dict[str, set[str]]
) -> None:
    (query,) = [one["query"]["query"] for one in monitoring.dashboard()["templating"]["list"] if one["type"] == "query"]
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", query).groups()  # type: ignore[union-attr]
    assert label in exposed[metric]


@pytest.mark.parametrize(
    ("expression", "metrics"),
    [
        ("sum by (dynamo_x) (rate(nat_dynamo_calls_total[5m]))", {"nat_dynamo_calls_total"}),
        ('dynamo_a{dynamo_b="c"} / on (dynamo_d) nat_dynamo_e_bucket', {"dynamo_a", "nat_dynamo_e_bucket"}),
    ],
)
def test_metrics_are_found_in_expressions(monitoring: ModuleType, expression: str, metrics: set[str]) -> None:
    assert monitoring.metrics_in(expression) == metrics


def test_a_metric_of_ours_that_there_is_not_is_refused(monitoring: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "expressions", lambda: ["rate(nat_dynamo_gone_total[5m])"])
    with pytest.raises(ValueError, match="no such metrics: nat_dynamo_gone_total"):
        monitoring.files()


def test_what_is_written_is_not_stale(monitoring: ModuleType) -> None:
    for name, text in monitoring.files().items():
        assert (DEPLOY / name).read_text() == text, f"{name}: run `make monitoring`"


# What Grafana reads of a dashboard, as its documentation has it ("Dashboard JSON model").
PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "gridPos"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "type": {"enum": ["row", "timeseries"]},
        "gridPos": {
            "type": "object",
            "required": ["x", "y", "w", "h"],
            "properties": {name: {"type": "integer", "minimum": 0, "maximum": 10000} for name in "xywh"},
        },
        "targets": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["refId", "expr", "legendFormat", "datasource"]},
        },
    },
    "if": {"properties": {"type": {"const": "timeseries"}}},
    "then": {"required": ["targets", "fieldConfig", "datasource", "description"]},
}
DASHBOARD = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time"],
    "properties": {
        "uid": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "panels": {"type": "array", "items": PANEL, "minItems": 1},
        "templating": {"type": "object", "required": ["list"]},
    },
}


class TestDashboard:
    @pytest.fixture
    def panels(self) -> Iterator[list[dict[str, Any]]]:
        yield json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text())["panels"]

    def test_it_is_one(self) -> None:
        jsonschema.validate(json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text()), DASHBOARD)

    def test_ids_are_unique_and_no_panel_lies_on_another(self, panels: list[dict[str, Any]]) -> None:
        assert len({panel["id"] for panel in panels}) == len(panels)
        cells = [
            (x, y)
            for panel in panels
            for place in (panel["gridPos"],)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24

    def test_it_shows_what_it_is_for(self, panels: list[dict[str, Any]]) -> None:
        titles = {panel["title"] for panel in panels}
        assert titles >= {
            *("KV cache reuse", "Time to first token", "Wait at the gate"),
            *("Sessions by worker", "Failed calls by kind"),
        }

    def test_variables_are_those_it_has(self) -> None:
        text = (DEPLOY / "monitoring" / "dashboard.json").read_text()
        names = {one["name"] for one in json.loads(text)["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__all"}
        assert used == names


class TestScraping:
    def test_a_monitor_and_a_scrape_config_choose_the_same_pods(self) -> None:
        documents = yaml.safe_load_all((DEPLOY / "monitoring" / "pod-monitors.yaml").read_text())
        chosen = {}
        for monitor in documents:
            assert monitor["apiVersion"] == "monitoring.coreos.com/v1" and monitor["kind"] == "PodMonitor"
            (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
            chosen[endpoint["port"]] = endpoint.get("honorLabels", False)
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
        ports = {}
        for job in config["scrape_configs"]:
            (port,) = [
                rule["regex"]
                for rule in job["relabel_configs"]
                if rule["source_labels"] == ["__meta_kubernetes_pod_container_port_name"]
            ]
            ports[port] = job["honor_labels"]
        assert chosen == ports == {"metrics": False, "http": True, "system": True}

    def test_the_rules_of_both_are_the_same(self) -> None:
        rule = yaml.safe_load((DEPLOY / "monitoring" / "prometheus-rule.yaml").read_text())
        assert rule["kind"] == "PrometheusRule"
        assert rule["spec"] == yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())


@pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool (Debian has it in `prometheus`)")
class TestPromtool:
    def promtool(self, *arguments: str) -> str:
        done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def test_it_takes_the_rules(self, monitoring: ModuleType) -> None:
        rules = sum(len(group["rules"]) for group in monitoring.rules()["groups"])
        assert f"{rules} rules found" in self.promtool("check", "rules", str(DEPLOY / "prometheus" / "rules.yaml"))

    def test_it_takes_the_dashboards_expressions(self, monitoring: ModuleType, tmp_path: Path) -> None:
        """As recording rules; Grafana puts a time in place of its own variable."""
        rules = [
            {"record": f"panel_{index}", "expr": expression.replace("$__rate_interval", "1m")}
            for index, expression in enumerate(monitoring.expressions())
        ]
        path = tmp_path / "rules.yaml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
        assert f"{len(rules)} rules found" in self.promtool("check", "rules", str(path))

    def test_it_takes_the_scrape_config(self, tmp_path: Path) -> None:
        """But for the discovery of pods, which Debian builds without."""
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
        for job in config["scrape_configs"]:
            assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
            job["static_configs"] = [{"targets": ["127.0.0.1:1"]}]
        shutil.copy(DEPLOY / "prometheus" / "rules.yaml", tmp_path)
        path = tmp_path / "prometheus.yaml"
        path.write_text(yaml.safe_dump(config))
        self.promtool("check", "config", str(path))

    def test_alerts_fire_when_they_should(self, tmp_path: Path) -> None:
        shutil.copy(DEPLOY / "prometheus" / "rules.yaml", tmp_path)
        shutil.copy(Path(__file__).parent / "alerts.yaml", tmp_path)
        self.promtool("test", "rules", str(tmp_path / "alerts.yaml"))
