"""`dynamo_ttft`: time to first token."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from nat_dynamo_plugin.evaluators.metric import DynamoMetricConfig, Metric, Sample
from nat_dynamo_plugin.evaluators.records import Question
from nat_dynamo_plugin.telemetry.record import CallRecord


class Ttft(Metric):
    """Either the server's clock or the client's, never a mixture of both."""

    unit: ClassVar[str] = "ms"
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    meaning: ClassVar[str] = "time to first token of a call"

    def __init__(self, measured_at: Literal["server", "client"] = "server") -> None:
        self.measured_at = measured_at
        self.needs = f"no answered call with a {measured_at} time to first token"  # type: ignore[misc]

    def samples(self, question: Question) -> list[Sample]:
        """One a call, in milliseconds."""
        return [Sample(ttft) for call in question.answered_calls if (ttft := self._ttft(call)) is not None]

    def details(self, question: Question) -> dict[str, Any]:
        """Whose clock it was, and the fastest and the slowest call."""
        values = [sample.value for sample in self.samples(question)]
        return {
            "measured_at": self.measured_at,
            "fastest_ms": min(values, default=None),
            "slowest_ms": max(values, default=None),
        }

    def _ttft(self, call: CallRecord) -> float | None:
        return call.server_ttft_ms if self.measured_at == "server" else call.client_ttft_ms


class TtftConfig(DynamoMetricConfig, name="dynamo_ttft"):  # type: ignore[call-arg]
    """Time to first token of the LLM calls, in milliseconds; lower is better. All statistics are over
    calls."""

    measured_at: Literal["server", "client"] = Field(
        default="server",
        description="'server': as Dynamo's frontend reports it, streamed or not. 'client': from sending the "
        "request to the first token received, network included; known for streamed calls only.",
    )

    def metric(self) -> Ttft:
        """The metric of this config."""
        return Ttft(self.measured_at)
