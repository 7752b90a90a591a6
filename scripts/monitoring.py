"""Write what Prometheus and Grafana need: a dashboard, alert rules, and how to scrape.

    python scripts/monitoring.py            write deploy/monitoring/ and deploy/prometheus/
    python scripts/monitoring.py --check    end with 1 if a file there is not what would be written

Our metrics' names come from the exporter (`metric_families`): an expression that names one of ours that is not there is
refused here; the tests hold every name against what a real Dynamo and a real exporter expose.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

sys.path.insert(0, str(Path(__file__).parent))
from metric_families import families

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"

HEADER = "# Written by scripts/monitoring.py; `make monitoring` writes it anew.\n"
TITLE = "Agents on Dynamo"
UID = "nat-dynamo-agents"

_METRIC = re.compile(r"\b(?:nat_dynamo|dynamo)_[a-z0-9_]+\b")
_WINDOW = "$__rate_interval"
# The model, and what Kubernetes adds, as the dashboard's variables choose them.
_OURS = 'model=~"$model"'


def metrics_in(expression: str) -> set[str]:
    """Names of the metrics that a PromQL expression reads; labels are in braces or brackets, and are none."""
    return set(_METRIC.findall(re.sub(r"\{[^}]*\}|\b(?:by|without|on|ignoring)\s*\([^)]*\)", "", expression)))


# --- The dashboard


class Panel(NamedTuple):
    """One picture of the dashboard.

    Attributes:
        title: what it shows.
        text: what it says, and when it is bad.
        queries: legend and PromQL expression.
        unit: Grafana's word for it.
        stacked: whether the series are parts of a whole.
    """

    title: str
    text: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    stacked: bool = False


def share(part: str, whole: str, by: str = "model") -> str:
    """One counter's rate as a share of another's."""
    return f"sum by ({by}) (rate({part}[{_WINDOW}])) / sum by ({by}) (rate({whole}[{_WINDOW}]))"


def quantile(q: float, histogram: str, by: str = "model") -> str:
    """A quantile of a histogram."""
    name, _, selector = histogram.partition("{")
    selector = f"{{{selector}" if selector else ""
    return f"histogram_quantile({q}, sum by ({by}, le) (rate({name}_bucket{selector}[{_WINDOW}])))"


def rate(counter: str, by: str) -> str:
    """A counter's rate."""
    return f"sum by ({by}) (rate({counter}[{_WINDOW}]))"


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Agents",
        (
            Panel(
                "KV cache reuse",
                "Share of the prompts' tokens that engines took from their KV cache. It falls when more questions are "
                "under way than the caches hold the prompts of.",
                (
                    (
                        "{{model}}",
                        share(
                            f"nat_dynamo_cached_tokens_total{{{_OURS}}}", f"nat_dynamo_prompt_tokens_total{{{_OURS}}}"
                        ),
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Time to first token",
                "As the server says it, for our calls.",
                tuple(
                    (f"{{{{model}}}} p{q * 100:g}", quantile(q, f"nat_dynamo_ttft_seconds{{{_OURS}}}"))
                    for q in (0.5, 0.95)
                ),
                "s",
            ),
            Panel(
                "Time of a call",
                "As its caller sees it, the wait at the gate and all attempts included.",
                tuple(
                    (f"{{{{model}}}} p{q * 100:g}", quantile(q, f"nat_dynamo_call_seconds{{{_OURS}}}"))
                    for q in (0.5, 0.95)
                ),
                "s",
            ),
            Panel(
                "Wait at the gate",
                "Calls of questions that wait for a place (admission). Long waits and much reuse: it is full.",
                tuple(
                    (f"{{{{model}}}} p{q * 100:g}", quantile(q, f"nat_dynamo_gate_wait_seconds{{{_OURS}}}"))
                    for q in (0.5, 0.95)
                ),
                "s",
            ),
            Panel(
                "Questions",
                "Under way, waiting at the gate, and the bound where a number is one.",
                (
                    ("{{model}} under way", f"sum by (model) (nat_dynamo_active_prefixes{{{_OURS}}})"),
                    ("{{model}} waiting", f"sum by (model) (nat_dynamo_waiting_prefixes{{{_OURS}}})"),
                    ("{{model}} bound", f"sum by (model) (nat_dynamo_max_active_prefixes{{{_OURS}}})"),
                ),
            ),
            Panel(
                "Prompt tokens under way",
                "Of all questions under way, what they share counted once, and the room that `auto` has found.",
                (
                    ("{{model}} under way", f"sum by (model) (nat_dynamo_active_tokens{{{_OURS}}})"),
                    ("{{model}} room", f"sum by (model) (nat_dynamo_max_active_tokens{{{_OURS}}})"),
                ),
            ),
            Panel(
                "Sessions by worker",
                "New sessions a second, by the worker that decoded their first call. One far above the others is a hot "
                "spot.",
                (("{{worker}}", rate(f"nat_dynamo_worker_sessions_total{{{_OURS}}}", "worker")),),
                "ops",
                True,
            ),
            Panel(
                "Calls by worker",
                "Calls a second, by the worker that decoded them.",
                (("{{worker}}", rate(f"nat_dynamo_worker_calls_total{{{_OURS}}}", "worker")),),
                "ops",
                True,
            ),
            Panel(
                "Failed calls by kind",
                "Calls a second that failed in the end, retries included.",
                (("{{error}}", rate(f"nat_dynamo_errors_total{{{_OURS}}}", "error")),),
                "ops",
                True,
            ),
            Panel(
                "Calls and requests",
                "More requests than calls: retries.",
                (
                    ("{{model}} calls", rate(f"nat_dynamo_calls_total{{{_OURS}}}", "model")),
                    ("{{model}} requests", rate(f"nat_dynamo_attempts_total{{{_OURS}}}", "model")),
                ),
                "ops",
            ),
            Panel(
                "Tokens",
                "A second: prompts, what of them was computed anew, answers.",
                (
                    ("{{model}} prompt", rate(f"nat_dynamo_prompt_tokens_total{{{_OURS}}}", "model")),
                    (
                        "{{model}} computed anew",
                        f"{rate(f'nat_dynamo_prompt_tokens_total{{{_OURS}}}', 'model')} - "
                        f"{rate(f'nat_dynamo_cached_tokens_total{{{_OURS}}}', 'model')}",
                    ),
                    ("{{model}} answers", rate(f"nat_dynamo_completion_tokens_total{{{_OURS}}}", "model")),
                ),
            ),
        ),
    ),
    (
        "Dynamo, with all its clients",
        (
            Panel(
                "KV cache reuse",
                "Share of the input tokens that came out of a cache, of all clients.",
                (
                    (
                        "{{model}}",
                        share(
                            f"dynamo_frontend_cached_tokens_sum{{{_OURS}}}",
                            f"dynamo_frontend_input_sequence_tokens_sum{{{_OURS}}}",
                        ),
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Time to first token",
                "As the frontend sees it, the wait in the router's queue included.",
                tuple(
                    (
                        f"{{{{model}}}} p{q * 100:g}",
                        quantile(q, f"dynamo_frontend_time_to_first_token_seconds{{{_OURS}}}"),
                    )
                    for q in (0.5, 0.95)
                ),
                "s",
            ),
            Panel(
                "Requests",
                "Under way, and waiting in the router's queue (--router-queue-threshold).",
                (
                    ("{{model}} under way", f"sum by (model) (dynamo_frontend_inflight_requests{{{_OURS}}})"),
                    (
                        "{{model}} in the queue",
                        f"sum by (model) (dynamo_frontend_router_queue_pending_requests{{{_OURS}}})",
                    ),
                ),
            ),
            Panel(
                "Answers by status",
                "Requests a second by how they ended.",
                (
                    (
                        "{{status}} {{error_type}}",
                        rate(f"dynamo_frontend_requests_total{{{_OURS}}}", "status, error_type"),
                    ),
                ),
                "ops",
                True,
            ),
            Panel(
                "Decode blocks by worker",
                "KV blocks of the requests that each worker decodes, as the router counts them.",
                (("{{worker_id}}", "sum by (worker_id) (dynamo_frontend_worker_active_decode_blocks)"),),
                "short",
                True,
            ),
            Panel(
                "Prefill tokens by worker",
                "Tokens that each worker is computing, as the router counts them.",
                (("{{worker_id}}", "sum by (worker_id) (dynamo_frontend_worker_active_prefill_tokens)"),),
                "short",
                True,
            ),
        ),
    ),
)


def panel(number: int, given: Panel, x: int, y: int) -> dict[str, Any]:
    """A panel in Grafana's JSON."""
    return {
        "id": number,
        "type": "timeseries",
        "title": given.title,
        "description": given.text,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": x, "y": y, "w": 12, "h": 8},
        "fieldConfig": {
            "defaults": {
                "unit": given.unit,
                "min": 0,
                **({"max": 1} if given.unit == "percentunit" else {}),
                "custom": {
                    "drawStyle": "line",
                    "lineWidth": 1,
                    "fillOpacity": 30 if given.stacked else 0,
                    "spanNulls": False,
                    "stacking": {"mode": "normal" if given.stacked else "none", "group": "A"},
                },
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "expr": expression,
                "legendFormat": legend,
                "range": True,
            }
            for index, (legend, expression) in enumerate(given.queries)
        ],
    }


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's JSON."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        place = {"x": 0, "y": y, "w": 24, "h": 1}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        )
        y += 1
        for index, given in enumerate(row):
            panels.append(panel(len(panels) + 1, given, 12 * (index % 2), y + 8 * (index // 2)))
        y += 8 * ((len(row) + 1) // 2)
    return {
        "uid": UID,
        "title": TITLE,
        "tags": ["dynamo", "llm"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "model",
                    "label": "Model",
                    "type": "query",
                    "datasource": {"type": "prometheus", "uid": "${datasource}"},
                    "query": {
                        "query": "label_values(dynamo_frontend_model_ready, model)",
                        "refId": "model",
                    },
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": panels,
    }


# --- Alert rules


def alert(name: str, expression: str, wait: str, severity: str, summary: str, what_to_do: str) -> dict[str, Any]:
    """A rule in Prometheus' YAML."""
    return {
        "alert": name,
        "expr": expression,
        "for": wait,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": what_to_do},
    }


def rules() -> dict[str, Any]:
    """Alert rules for Prometheus."""
    failed = "sum by (model) (rate(nat_dynamo_errors_total[5m]))"
    calls = "sum by (model) (rate(nat_dynamo_calls_total[5m]))"
    cached = "sum by (model) (rate(nat_dynamo_cached_tokens_total[15m]))"
    prompt = "sum by (model) (rate(nat_dynamo_prompt_tokens_total[15m]))"
    waited = "sum by (model, le) (rate(nat_dynamo_gate_wait_seconds_bucket[10m]))"
    ttft = "sum by (model, le) (rate(dynamo_frontend_time_to_first_token_seconds_bucket[10m]))"
    queued = "sum by (model) (dynamo_frontend_router_queue_pending_requests)"
    overload = 'sum by (model) (rate(nat_dynamo_errors_total{error="overload"}[5m]))'
    return {
        "groups": [
            {
                "name": "nat-dynamo-agents",
                "rules": [
                    alert(
                        "AgentCallsFail",
                        f"{failed} / {calls} > 0.05",
                        "5m",
                        "critical",
                        "{{ $value | humanizePercentage }} of the LLM calls to {{ $labels.model }} fail",
                        "See the failed calls by kind on the dashboard, then the log, which has the server's words.",
                    ),
                    alert(
                        "AgentCallsRefusedForOverload",
                        f"{overload} > 0",
                        "5m",
                        "warning",
                        "Calls to {{ $labels.model }} fail because the server takes no more",
                        "Set max_active_prefixes: auto, or add workers.",
                    ),
                    alert(
                        "AgentQuestionsWaitLong",
                        f"histogram_quantile(0.95, {waited}) > 60",
                        "10m",
                        "warning",
                        "One in twenty calls to {{ $labels.model }} waits {{ $value | humanizeDuration }} at the gate",
                        "The KV caches are full with the prompts of the questions under way: add workers.",
                    ),
                    alert(
                        "AgentCacheReuseLow",
                        f"{cached} / {prompt} < 0.3 and {prompt} > 1000",
                        "15m",
                        "warning",
                        "Only {{ $value | humanizePercentage }} of the prompts of {{ $labels.model }} were in a cache",
                        "Too many questions at once (admission is off?), a router that is not cache-aware, or prompts "
                        "that differ near their beginning.",
                    ),
                ],
            },
            {
                "name": "nat-dynamo-cluster",
                "rules": [
                    alert(
                        "DynamoModelNotReady",
                        "max by (model) (dynamo_frontend_model_ready) == 0",
                        "2m",
                        "critical",
                        "{{ $labels.model }} has no worker that is ready",
                        "Look at the workers' pods and logs.",
                    ),
                    alert(
                        "DynamoFirstTokenSlow",
                        f"histogram_quantile(0.95, {ttft}) > 10",
                        "10m",
                        "warning",
                        "One in twenty first tokens of {{ $labels.model }} takes {{ $value | humanizeDuration }}",
                        "Compare reuse, the router's queue and prefill tokens by worker on the dashboard.",
                    ),
                    alert(
                        "DynamoQueueStands",
                        f"min_over_time({queued}[10m:1m]) > 0",
                        "5m",
                        "warning",
                        "The router's queue of {{ $labels.model }} has not been empty for ten minutes",
                        "More arrives than the workers do: add workers, or admit less.",
                    ),
                ],
            },
        ]
    }


# --- Who is scraped


def monitor(name: str, labels: dict[str, Any], port: str, honor: bool) -> dict[str, Any]:
    """A PodMonitor of the Prometheus operator."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": name},
        "spec": {
            "selector": labels,
            "podMetricsEndpoints": [
                {"port": port, "path": "/metrics", "interval": "15s", **({"honorLabels": True} if honor else {})}
            ],
        },
    }


WORKER_KINDS = ["worker", "decode", "prefill"]


def monitors() -> list[dict[str, Any]]:
    """PodMonitors of the agents, of Dynamo's frontends and of its workers."""
    scraped = {"nvidia.com/metrics-enabled": "true"}
    kinds = {"key": "nvidia.com/dynamo-component-type", "operator": "In", "values": WORKER_KINDS}
    return [
        monitor("nat-dynamo-agents", {"matchLabels": {"nat-dynamo/metrics": "true"}}, "metrics", False),
        monitor(
            "nat-dynamo-frontend",
            {"matchLabels": {"nvidia.com/dynamo-component-type": "frontend", **scraped}},
            "http",
            True,
        ),
        monitor("nat-dynamo-worker", {"matchLabels": scraped, "matchExpressions": [kinds]}, "system", True),
    ]


def scrape_config() -> dict[str, Any]:
    """The same for a Prometheus without its operator."""

    def job(name: str, label: str, values: str, port: str, honor: bool) -> dict[str, Any]:
        return {
            "job_name": name,
            "honor_labels": honor,
            "kubernetes_sd_configs": [{"role": "pod"}],
            "relabel_configs": [
                {"source_labels": [f"__meta_kubernetes_pod_label_{label}"], "regex": values, "action": "keep"},
                {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": port, "action": "keep"},
                {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            ],
        }

    kind = "nvidia_com_dynamo_component_type"
    return {
        "global": {"scrape_interval": "15s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            job("nat-dynamo-agents", "nat_dynamo_metrics", "true", "metrics", False),
            job("dynamo-frontend", kind, "frontend", "http", True),
            job("dynamo-worker", kind, "|".join(WORKER_KINDS), "system", True),
        ],
    }


# --- Files


def expressions() -> list[str]:
    """All PromQL of the dashboard and the rules."""
    shown = [expression for _, row in ROWS for given in row for _, expression in given.queries]
    return [*shown, *(rule["expr"] for group in rules()["groups"] for rule in group["rules"])]


def check_names() -> None:
    """Raises `ValueError` for a metric of ours that is not there."""
    known = {series for family in families() for series in family.series}
    named = {name for expression in expressions() for name in metrics_in(expression)}
    if unknown := {name for name in named if name.startswith("nat_dynamo_")} - known:
        raise ValueError(f"there are no such metrics: {', '.join(sorted(unknown))}")


def as_yaml(*documents: Any) -> str:
    return HEADER + yaml.safe_dump_all(documents, sort_keys=False, width=120, allow_unicode=True)


def files() -> dict[str, str]:
    """What is written, by its place in `deploy/`."""
    check_names()
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "nat-dynamo"},
        "spec": rules(),
    }
    return {
        "monitoring/dashboard.json": json.dumps(dashboard(), indent=1) + "\n",
        "monitoring/pod-monitors.yaml": as_yaml(*monitors()),
        "monitoring/prometheus-rule.yaml": as_yaml(rule),
        "prometheus/rules.yaml": as_yaml(rules()),
        "prometheus/prometheus.yaml": as_yaml(scrape_config()),
    }


def main() -> int:
    made, stale = files(), []
    for name, text in made.items():
        path = DEPLOY / name
        if "--check" not in sys.argv[1:]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    for name in stale:
        print(f"deploy/{name} is stale; run `make monitoring`", file=sys.stderr)
    if not stale:
        print("Monitoring: as the code.")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
