"""Records as Prometheus metrics, in the default registry of `prometheus-client`."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from nat_dynamo_plugin.admission.gate import Gate, gates
from nat_dynamo_plugin.telemetry.record import CallRecord

BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the latency buckets, in seconds."""

BATCH = 64
"""Records that are added up at once."""


class _Latency:
    """Observations of one histogram."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def observe(self, ms: float) -> None:
        seconds = ms / 1000.0
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        total, cumulative = 0, []
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self.counts, strict=True):
            total += count
            cumulative.append((bound, float(total)))
        return cumulative


class _Model:
    """What is kept of one model."""

    __slots__ = ("cached", "calls", "completion", "prompt", "total", "ttft")

    def __init__(self) -> None:
        self.calls: Counter[int | None] = Counter()
        self.prompt = self.cached = self.completion = 0
        self.ttft, self.total = _Latency(), _Latency()


class PrometheusExporter(Collector):
    """Counts calls and tokens and observes latencies, labelled by model.

    A call costs an append: records are added up a batch at a time, and turned into metrics when somebody scrapes. Five
    metric objects to update on each call would cost 10 µs. Prefix and session ids are no labels: each would be a time
    series that never ends.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._models: dict[str, _Model] = {}
        self._lock = threading.Lock()
        self._pending: deque[CallRecord] = deque()
        registry.register(self)

    @classmethod
    @cache
    def shared(cls) -> PrometheusExporter:
        """The one exporter of the default registry, which takes each metric once."""
        return cls()

    def __call__(self, record: CallRecord) -> None:
        """Take one record."""
        self._pending.append(record)
        if len(self._pending) >= BATCH:
            with self._lock:
                self._add_up()

    def _add_up(self) -> None:
        """Add the pending records to the sums. Needs the lock."""
        while True:
            try:
                record = self._pending.popleft()
            except IndexError:
                return
            name = record.model or "unknown"
            model = self._models.get(name)
            if model is None:
                model = self._models[name] = _Model()
            model.calls[record.status] += 1
            model.prompt += record.prompt_tokens or 0
            model.cached += record.cached_tokens or 0
            model.completion += record.completion_tokens or 0
            if record.server_ttft_ms is not None:
                model.ttft.observe(record.server_ttft_ms)
            if record.client_total_ms is not None:
                model.total.observe(record.client_total_ms)

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand, for a scrape."""
        calls = CounterMetricFamily("nat_dynamo_calls", "LLM calls by HTTP status.", labels=("model", "status"))
        tokens = {
            "prompt": CounterMetricFamily("nat_dynamo_prompt_tokens", "Prompt tokens.", labels=("model",)),
            "cached": CounterMetricFamily(
                "nat_dynamo_cached_tokens", "Prompt tokens the engine reused from its KV cache.", labels=("model",)
            ),
            "completion": CounterMetricFamily("nat_dynamo_completion_tokens", "Output tokens.", labels=("model",)),
        }
        latencies = {
            "ttft": HistogramMetricFamily(
                "nat_dynamo_ttft_seconds", "Time to first token as the server says it.", labels=("model",)
            ),
            "total": HistogramMetricFamily(
                "nat_dynamo_call_seconds", "Time of a call as the client sees it.", labels=("model",)
            ),
        }
        with self._lock:
            self._add_up()
            for name, model in self._models.items():
                for status, count in model.calls.items():
                    calls.add_metric((name, "none" if status is None else str(status)), count)
                for kind, counter in tokens.items():
                    counter.add_metric((name,), getattr(model, kind))
                for kind, histogram in latencies.items():
                    latency: _Latency = getattr(model, kind)
                    histogram.add_metric((name,), latency.buckets(), latency.total_s)
        yield calls
        yield from tokens.values()
        yield from latencies.values()
        yield from _gate_metrics()


_GATE_GAUGES: tuple[tuple[str, str, Callable[[Gate], float | None]], ...] = (
    ("active_prefixes", "Questions under way.", lambda gate: gate.under_way),
    ("waiting_prefixes", "Questions that wait at the gate.", lambda gate: gate.waiting),
    (
        "active_tokens",
        "Tokens of the prompts of questions under way, what they share counted once.",
        lambda gate: gate.tokens,
    ),
    ("max_active_prefixes", "Questions that may be under way, where a number bounds them.", lambda gate: gate.limit),
    ("max_active_tokens", "Tokens that their prompts may have, where `auto` has found that.", lambda gate: gate.room),
)


def _gate_metrics() -> Iterator[Metric]:
    """What gates hold back now; of gates of the same model the sum, for each lets in what it has room for."""
    for name, text, read in _GATE_GAUGES:
        sums: dict[str, float] = {}
        for gate in gates():
            value = read(gate)
            if value is not None:
                sums[gate.model] = sums.get(gate.model, 0.0) + value
        gauge = GaugeMetricFamily(f"nat_dynamo_{name}", text, labels=("model",))
        for model, total in sums.items():
            gauge.add_metric((model,), total)
        yield gauge
