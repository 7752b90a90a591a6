"""`dynamo_kv_reuse`: how much of the prompts the engines took from their KV cache."""

from __future__ import annotations

from typing import ClassVar, Literal

from nat_dynamo_plugin.evaluators.metric import CallMetric, DynamoMetricConfig, Sample
from nat_dynamo_plugin.telemetry.record import CallRecord


class KvReuse(CallMetric):
    """Reads `usage.prompt_tokens_details.cached_tokens`.

    Not the router's `kv_hit_rate`: that is a forecast, and too high under cache pressure.
    """

    unit: ClassVar[str] = "share"
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    meaning = "prompt tokens taken from KV cache"
    needs = "no answered call with both prompt_tokens and cached_tokens"

    def sample(self, call: CallRecord) -> Sample | None:
        """The call's cached tokens out of its prompt tokens."""
        if call.cached_tokens is None or not call.prompt_tokens:
            return None
        return Sample(call.cached_tokens, call.prompt_tokens)


class KvReuseConfig(DynamoMetricConfig, name="dynamo_kv_reuse"):  # type: ignore[call-arg]
    """Cached tokens over prompt tokens as the engine counted them, 0 to 1; higher is better.

    `mean` weighs by tokens: all cached tokens over all prompt tokens, the share of prefill that was saved.
    `p50` and `p95` are over calls, each with its own share.
    """

    def metric(self) -> KvReuse:
        """The metric of this config."""
        return KvReuse()
