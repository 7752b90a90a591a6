"""Records as Prometheus metrics, in the default registry of `prometheus-client`, and gauges as they stand."""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from nat_dynamo_plugin.telemetry.gauges import Gauge, read_gauges
from nat_dynamo_plugin.telemetry.prompt_counts import PromptCounts
from nat_dynamo_plugin.telemetry.record import CallRecord

BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the latency buckets, in seconds."""

BATCH = 64
"""Records that are added up at once."""

_SUMS = (
    ("attempts", "nat_dynamo_attempts", "HTTP requests sent for the calls."),
    ("prompt_tokens", "nat_dynamo_prompt_tokens", "Prompt tokens."),
    ("cached_tokens", "nat_dynamo_cached_tokens", "Prompt tokens the engine reused from its KV cache."),
    ("completion_tokens", "nat_dynamo_completion_tokens", "Output tokens."),
    ("cache_write_tokens", "nat_dynamo_cache_write_tokens", "Prompt tokens written to a provider's cache."),
    ("cost_usd", "nat_dynamo_cost_usd", "What the calls cost, in USD; of those whose cost is known."),
    ("saved_usd", "nat_dynamo_saved_usd", "What answers out of the response cache would have cost, in USD."),
    ("unpriced_attempts", "nat_dynamo_unpriced_attempts", "Attempts that may be billed and are in no cost."),
)
_SUMMED = tuple(name for name, _, _ in _SUMS)
_summed = attrgetter(*_SUMMED)
_LATENCIES = (
    ("server_ttft_ms", "nat_dynamo_ttft_seconds", "Time to first token as the server says it."),
    (
        "client_total_ms",
        "nat_dynamo_call_seconds",
        "Time of a call as its caller sees it, the wait at the gate and all attempts included.",
    ),
    ("gate_wait_ms", "nat_dynamo_gate_wait_seconds", "Wait of a call at the gate, where there is one."),
)
MOST_WORKERS = 256
"""Workers of a model that are told apart; of a cluster that starts more, the rest count as `other`."""
_latencies = attrgetter(*(name for name, _, _ in _LATENCIES))


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

    __slots__ = ("calls", "errors", "latencies", "sums", "workers")

    def __init__(self) -> None:
        self.calls: Counter[int | None] = Counter()
        self.errors: Counter[str] = Counter()
        self.workers: dict[str, list[int]] = {}
        self.sums: dict[str, float] = dict.fromkeys(_SUMMED, 0)
        self.latencies = [(name, _Latency()) for name, _, _ in _LATENCIES]

    def add(self, record: CallRecord) -> None:
        self.calls[record.status] += 1
        if record.failed:
            self.errors[record.kind or record.failure or ""] += 1
        if record.cache is not None:
            # Nobody has computed these tokens now, and no server took this time.
            self.sums["saved_usd"] += record.saved_usd or 0.0
            return
        if record.worker_id is not None:
            self._of_worker(str(record.worker_id), record.call_index == 0)
        sums = self.sums
        for name, value in zip(_SUMMED, _summed(record), strict=True):
            if value:
                sums[name] += value
        for (_, latency), ms in zip(self.latencies, _latencies(record), strict=True):
            if ms is not None:
                latency.observe(ms)

    def _of_worker(self, worker: str, begins: bool) -> None:
        if worker not in self.workers and len(self.workers) >= MOST_WORKERS:
            worker = "other"
        counts = self.workers.setdefault(worker, [0, 0])
        counts[0] += 1
        counts[1] += begins


class PrometheusExporter(Collector):
    """Counts calls, errors, attempts and tokens and observes latencies, labelled by the model that was asked for, and
    calls and prompt tokens by version of the prompt where there is one.

    A call costs an append: records are added up a batch at a time, and turned into metrics when somebody scrapes.
    Metric objects to update on each call would cost 10 µs. Prefix and session ids are no labels: each would be a time
    series that never ends.

    Args:
        registry: where to register; a registry takes each metric's name once, and raises `ValueError` otherwise.
        gauges: read at each scrape; values of one name and labels are added up.
    """

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, gauges: Callable[[], Iterable[Gauge]] = read_gauges
    ) -> None:
        self._gauges = gauges
        self._models: dict[str, _Model] = {}
        self._prompts = PromptCounts()
        self._lock = threading.Lock()
        self._pending: deque[CallRecord] = deque()
        registry.register(self)

    def __call__(self, record: CallRecord) -> None:
        """Take one record."""
        self._pending.append(record)
        # Whoever holds the lock adds up ours as well.
        if len(self._pending) >= BATCH and self._lock.acquire(blocking=False):
            try:
                self._add_up()
            finally:
                self._lock.release()

    def after_fork(self) -> None:
        """Go on in a child process, where the thread that held the lock may be gone."""
        self._lock = threading.Lock()

    def _add_up(self) -> None:
        """Add the pending records to the sums. Needs the lock."""
        while True:
            try:
                record = self._pending.popleft()
            except IndexError:
                return
            # Not the model that answered: it may have a longer name, and a failed call has none.
            name = record.request_model or record.model or "unknown"
            model = self._models.get(name)
            if model is None:
                model = self._models[name] = _Model()
            model.add(record)
            self._prompts.add(name, record)

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand, for a scrape."""
        calls = CounterMetricFamily("nat_dynamo_calls", "LLM calls by HTTP status.", labels=("model", "status"))
        errors = CounterMetricFamily("nat_dynamo_errors", "LLM calls that failed.", labels=("model", "error"))
        by_worker = [
            CounterMetricFamily(f"nat_dynamo_worker_{name}", text, labels=("model", "worker"))
            for name, text in (
                ("calls", "Calls by the worker that decoded them."),
                ("sessions", "Sessions by the worker that decoded their first call."),
            )
        ]
        sums = {name: CounterMetricFamily(metric, text, labels=("model",)) for name, metric, text in _SUMS}
        latencies = {name: HistogramMetricFamily(metric, text, labels=("model",)) for name, metric, text in _LATENCIES}
        with self._lock:
            self._add_up()
            for name, model in self._models.items():
                for status, count in model.calls.items():
                    calls.add_metric((name, "none" if status is None else str(status)), count)
                for error, count in model.errors.items():
                    errors.add_metric((name, error), count)
                for worker, counts in model.workers.items():
                    for family, count in zip(by_worker, counts, strict=True):
                        family.add_metric((name, worker), count)
                for key, counter in sums.items():
                    counter.add_metric((name,), model.sums[key])
                for key, latency in model.latencies:
                    latencies[key].add_metric((name,), latency.buckets(), latency.total_s)
            prompts = tuple(self._prompts.metrics())
        yield from (calls, errors, *by_worker, *sums.values(), *latencies.values(), *prompts)
        yield from self._gauge_metrics()

    def _gauge_metrics(self) -> Iterator[Metric]:
        families: dict[str, tuple[Metric, dict[tuple[tuple[str, str], ...], float]]] = {}
        for name, text, labels, value, counts in self._gauges():
            if name not in families:
                kind = CounterMetricFamily if counts else GaugeMetricFamily
                families[name] = kind(f"nat_dynamo_{name}", text), {}
            values, key = families[name][1], tuple(sorted(labels.items()))
            values[key] = values.get(key, 0.0) + value
        for family, values in families.values():
            for key, value in values.items():
                family.add_sample(f"{family.name}_total" if family.type == "counter" else family.name, dict(key), value)
            yield family


def exporter() -> PrometheusExporter:
    """The exporter of the default registry."""
    made = PrometheusExporter()
    os.register_at_fork(after_in_child=made.after_fork)
    return made
