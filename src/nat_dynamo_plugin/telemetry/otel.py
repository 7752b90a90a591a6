"""Records as OpenTelemetry metrics, of the meter provider that the application has set; none set, none kept.

Names follow OpenTelemetry's generative AI conventions where they have one (`gen_ai.client.*`, `gen_ai.server.*`).
"""

from __future__ import annotations

from opentelemetry import metrics

from nat_dynamo_plugin.telemetry.record import CallRecord


class OpenTelemetryExporter:
    """Records durations in seconds and token counts, with the model and the status as attributes."""

    def __init__(self, provider: metrics.MeterProvider | None = None) -> None:
        self._has_reader = provider is not None
        meter = metrics.get_meter("nat_dynamo_plugin", meter_provider=provider)
        self._duration = meter.create_histogram("gen_ai.client.operation.duration", unit="s")
        self._ttft = meter.create_histogram("gen_ai.server.time_to_first_token", unit="s")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", unit="{token}")
        self._cached = meter.create_counter("nat_dynamo.cached_tokens", unit="{token}")

    def __call__(self, record: CallRecord) -> None:
        """Take one record; costs next to nothing until the application has set a meter provider of the SDK."""
        if not self._has_reader:
            # The API's own stand-ins keep nothing and have nothing to flush.
            self._has_reader = hasattr(metrics.get_meter_provider(), "force_flush")
            if not self._has_reader:
                return
        attributes: dict[str, str | int] = {"gen_ai.response.model": record.model or "unknown"}
        if record.status is not None:
            attributes["http.response.status_code"] = record.status
        if record.client_total_ms is not None:
            self._duration.record(record.client_total_ms / 1000.0, attributes)
        if record.server_ttft_ms is not None:
            self._ttft.record(record.server_ttft_ms / 1000.0, attributes)
        for kind, tokens in (("input", record.prompt_tokens), ("output", record.completion_tokens)):
            if tokens is not None:
                self._tokens.record(tokens, {**attributes, "gen_ai.token.type": kind})
        if record.cached_tokens is not None:
            self._cached.add(record.cached_tokens, attributes)
