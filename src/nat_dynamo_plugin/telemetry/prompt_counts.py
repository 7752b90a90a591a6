"""Prometheus metrics by version of the prompt, where calls have one (`prompt_versions`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily

from nat_dynamo_plugin.telemetry.record import CallRecord

MAX_VERSIONS = 50
"""Versions told apart of a model, those that come first; the calls of all others are `other`'s. A system prompt with
the time of day in it is another one with each call, and each would be a time series that never ends."""
OTHER = "other"

_METRICS = {
    "calls": ("nat_dynamo_prompt_calls", "LLM calls by version of the prompt."),
    "errors": ("nat_dynamo_prompt_errors", "LLM calls that failed, by version of the prompt."),
    "prompt_tokens": ("nat_dynamo_prompt_version_prompt_tokens", "Prompt tokens by version of the prompt."),
    "cached_tokens": (
        "nat_dynamo_prompt_version_cached_tokens",
        "Prompt tokens the engine reused from its KV cache, by version of the prompt.",
    ),
}


class PromptCounts:
    """What is counted, by model and version. Its user sees to it that one thread at a time is in here."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Counter[str]] = {}
        self._versions: Counter[str] = Counter()

    def add(self, model: str, record: CallRecord) -> None:
        """Count a call; one without a version is none of these."""
        version = record.prompt_version
        if version is None:
            return
        counts = self._counts.get((model, version))
        if counts is None:
            if self._versions[model] >= MAX_VERSIONS:
                version = OTHER
            else:
                self._versions[model] += 1
            counts = self._counts.setdefault((model, version), Counter())
        counts["calls"] += 1
        counts["errors"] += record.failed
        if record.cache is not None:
            return  # no engine has seen these tokens
        counts["prompt_tokens"] += record.prompt_tokens or 0
        counts["cached_tokens"] += record.cached_tokens or 0

    def metrics(self) -> Iterator[Metric]:
        """The metrics as they stand; none before the first call that has a version."""
        if not self._counts:
            return
        for name, (metric, text) in _METRICS.items():
            family = CounterMetricFamily(metric, text, labels=("model", "prompt_version"))
            for labels, counts in self._counts.items():
                family.add_metric(labels, counts[name])
            yield family
