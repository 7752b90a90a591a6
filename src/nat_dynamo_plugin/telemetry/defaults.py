"""Where call records go. A backend a file; each is used by itself where its library is installed."""

from __future__ import annotations

from importlib.util import find_spec

from nat_dynamo_plugin.telemetry import nat_steps
from nat_dynamo_plugin.telemetry.record import Emit


def default_exporters() -> tuple[Emit, ...]:
    """NAT's intermediate steps, always; Prometheus and OpenTelemetry metrics where their libraries are installed."""
    exporters: list[Emit] = [nat_steps.export]
    if find_spec("prometheus_client") is not None:
        from nat_dynamo_plugin.telemetry.prometheus import PrometheusExporter

        exporters.append(PrometheusExporter.shared())
    if find_spec("opentelemetry") is not None and find_spec("opentelemetry.metrics") is not None:
        from nat_dynamo_plugin.telemetry.otel import OpenTelemetryExporter

        exporters.append(OpenTelemetryExporter())
    return tuple(exporters)
