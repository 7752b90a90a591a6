"""Records as Prometheus metrics, in the default registry of `prometheus-client`."""

from __future__ import annotations

from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from ..telemetry import CallRecord

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class PrometheusExporter:
    """Counts calls and tokens and observes latencies, labelled by model.

    Prefix and session ids are no labels: each would be a time series that never ends.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        label = ("model",)
        self._calls = Counter("nat_dynamo_calls", "LLM calls by HTTP status.", ("model", "status"), registry=registry)
        self._prompt = Counter("nat_dynamo_prompt_tokens", "Prompt tokens.", label, registry=registry)
        self._cached = Counter(
            "nat_dynamo_cached_tokens",
            "Prompt tokens the engine reused from its KV cache.",
            label,
            registry=registry,
        )
        self._completion = Counter("nat_dynamo_completion_tokens", "Output tokens.", label, registry=registry)
        self._ttft = Histogram(
            "nat_dynamo_ttft_seconds",
            "Time to first token as the server says it.",
            label,
            registry=registry,
            buckets=_SECONDS,
        )
        self._total = Histogram(
            "nat_dynamo_call_seconds",
            "Time of a call as the client sees it.",
            label,
            registry=registry,
            buckets=_SECONDS,
        )

        # Looking a label up costs as much as counting.
        self._by_model: dict[str, tuple[Counter, Counter, Counter, Histogram, Histogram]] = {}

    @classmethod
    @cache
    def shared(cls) -> PrometheusExporter:
        """The one exporter of the default registry, which takes each metric once."""
        return cls()

    def __call__(self, record: CallRecord) -> None:
        """Take one record."""
        model = record.model or "unknown"
        self._calls.labels(model, str(record.status or "none")).inc()
        metrics = self._by_model.get(model)
        if metrics is None:
            metrics = self._by_model[model] = (
                self._prompt.labels(model),
                self._cached.labels(model),
                self._completion.labels(model),
                self._ttft.labels(model),
                self._total.labels(model),
            )
        prompt, cached, completion, ttft, total = metrics
        for counter, value in (
            (prompt, record.prompt_tokens),
            (cached, record.cached_tokens),
            (completion, record.completion_tokens),
        ):
            if value is not None:
                counter.inc(value)
        if record.server_ttft_ms is not None:
            ttft.observe(record.server_ttft_ms / 1000.0)
        if record.client_total_ms is not None:
            total.observe(record.client_total_ms / 1000.0)
