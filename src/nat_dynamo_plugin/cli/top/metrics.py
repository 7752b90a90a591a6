"""Prometheus text, of Dynamo's frontend or of our own metrics, as counts."""

from __future__ import annotations

from collections.abc import Callable

from nat_dynamo_plugin.cli.top.counts import Counts, Worker

OURS = "nat_dynamo_"
DYNAMO = "dynamo_frontend_"

Labels = dict[str, str]


class NoMetrics(ValueError):
    """A text that has none of the metrics that are shown."""


def counts_of(text: str) -> Counts:
    """What a scrape says.

    Args:
        text: in Prometheus' format.

    Raises:
        NoMetrics: it is none, or has neither Dynamo's metrics nor ours.
    """
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(text))
    except ValueError as error:
        raise NoMetrics(f"are no metrics: {error}") from None
    samples = [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]
    for prefix, read in ((DYNAMO, _dynamo), (OURS, _ours)):
        found = [
            (name.removeprefix(prefix), labels, value) for name, labels, value in samples if name.startswith(prefix)
        ]
        if found or any(family.name.startswith(prefix) for family in families):  # which has counted nothing yet
            counts = Counts(what="calls" if prefix == DYNAMO else "questions")
            if prefix == DYNAMO:
                _registered(counts, samples)
            for name, labels, value in found:
                read(counts, name, labels, value)
            return counts
    raise NoMetrics("have nothing of Dynamo's frontend (dynamo_frontend_...) or of the plugin (nat_dynamo_...)")


def _registered(counts: Counts, samples: list[tuple[str, Labels, float]]) -> None:
    """All workers that the router knows, also those that have answered nothing yet."""
    for name, labels, value in samples:
        if name == "dynamo_component_router_worker_registered" and value and "router_worker_id" in labels:
            counts.workers.setdefault(labels["router_worker_id"], Worker())


def _dynamo(counts: Counts, name: str, labels: Labels, value: float) -> None:
    if name == "active_requests":
        counts.under_way = (counts.under_way or 0.0) + value
    elif name in ("queued_requests", "router_queue_pending_requests"):
        # The first counts what waits for its prefill; what the router holds back is among that.
        counts.waiting = max(counts.waiting or 0.0, value)
    elif name == "requests_total":
        counts.calls += value
        if labels.get("status") != "success" and value:
            counts.failed[labels.get("error_type") or labels.get("status") or "error"] += int(value)
    elif name == "input_sequence_tokens_sum":
        counts.prompt_tokens += value
    elif name == "cached_tokens_sum":
        counts.cached_tokens += value
    elif name == "model_total_kv_blocks":
        counts.kv_blocks = value
    elif name.startswith("time_to_first_token_seconds_"):
        _ttft(counts, name.rpartition("_")[2], labels, value)
    elif name in _OF_WORKER and "worker_id" in labels:
        worker = counts.workers.setdefault(labels["worker_id"], Worker())
        _OF_WORKER[name](worker, value)


def _add(field: str) -> Callable[[Worker, float], None]:
    """Adds up over the ranks of a worker."""

    def add(worker: Worker, value: float) -> None:
        setattr(worker, field, (getattr(worker, field) or 0.0) + value)

    return add


def _last(worker: Worker, value: float) -> None:
    worker.last_ttft_s = max(worker.last_ttft_s or 0.0, value)


_OF_WORKER: dict[str, Callable[[Worker, float], None]] = {
    "worker_active_decode_blocks": _add("decode_blocks"),
    "worker_active_prefill_tokens": _add("prefill_tokens"),
    "worker_last_time_to_first_token_seconds": _last,
}


def _ours(counts: Counts, name: str, labels: Labels, value: float) -> None:
    if name == "active_prefixes":
        counts.under_way = (counts.under_way or 0.0) + value
    elif name == "waiting_prefixes":
        counts.waiting = (counts.waiting or 0.0) + value
    elif name == "calls_total":
        counts.calls += value
    elif name == "errors_total":
        counts.failed[labels.get("error", "error")] += int(value)
    elif name == "prompt_tokens_total":
        counts.prompt_tokens += value
    elif name == "cached_tokens_total":
        counts.cached_tokens += value
    elif name.startswith("ttft_seconds_"):
        _ttft(counts, name.rpartition("_")[2], labels, value)


def _ttft(counts: Counts, part: str, labels: Labels, value: float) -> None:
    if part == "sum":
        counts.ttft_s += value
    elif part == "count":
        counts.ttft_count += value
    elif part == "bucket":
        bound = float(labels["le"])
        counts.ttft_buckets[bound] = counts.ttft_buckets.get(bound, 0.0) + value
