"""`dynamo_ttft`: time to first token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from nat_dynamo_plugin.evaluators.metric import CallMetric, DynamoMetricConfig, Sample
from nat_dynamo_plugin.evaluators.records import Question
from nat_dynamo_plugin.telemetry.record import CallRecord

Clock = Literal["server", "client"]


class Ttft(CallMetric):
    """Either the server's clock or the client's, never a mixture of both.

    Args:
        measured_at: whose clock.
        or_client: for whom no server of an evaluation says it, take the client's (see `suited`).
    """

    unit: ClassVar[str] = "ms"
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def __init__(self, measured_at: Clock = "server", *, or_client: bool = False) -> None:
        self.measured_at: Clock = measured_at
        self._or_client = or_client
        self.meaning = f"time to first token of a call, {measured_at}'s clock"
        self.needs = f"no answered call with a {measured_at} time to first token"
        if or_client:
            self.needs += ", and none that was streamed"

    def suited(self, questions: Sequence[Question]) -> Ttft:
        """On the client's clock if the server's is not known of any call."""
        calls = [call for question in questions for call in question.served_calls]
        if not self._or_client or any(call.server_ttft_ms is not None for call in calls):
            return self
        return Ttft("client") if any(call.client_ttft_ms is not None for call in calls) else self

    def sample(self, call: CallRecord) -> Sample | None:
        """The call's time, in milliseconds."""
        ttft = call.server_ttft_ms if self.measured_at == "server" else call.client_ttft_ms
        return None if ttft is None else Sample(ttft)

    def details(self, question: Question) -> dict[str, Any]:
        """Whose clock it was, and the fastest and the slowest call."""
        values = [sample.value for sample in self.samples(question)]
        return {
            "measured_at": self.measured_at,
            "fastest_ms": min(values, default=None),
            "slowest_ms": max(values, default=None),
        }


class TtftConfig(DynamoMetricConfig, name="dynamo_ttft"):  # type: ignore[call-arg]
    """Time to first token of the LLM calls, in milliseconds; lower is better. All statistics are over
    calls."""

    measured_at: Literal["auto", "server", "client"] = Field(
        default="auto",
        description="'server': as Dynamo's frontend reports it, streamed or not. 'client': from the caller's call to "
        "the first token received, network and waits of this client included; known for streamed calls only. 'auto': "
        "the server's, or the client's if no server said its own in the whole evaluation; the report says which.",
    )

    def metric(self) -> Ttft:
        """The metric of this config."""
        return Ttft(or_client=True) if self.measured_at == "auto" else Ttft(self.measured_at)
