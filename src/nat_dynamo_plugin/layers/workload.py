"""Admission and learning for the transport, until it goes through layers itself."""

from __future__ import annotations

import httpx

from nat_dynamo_plugin.admission.capacity import CapacityProbe
from nat_dynamo_plugin.admission.gate import Gate, Place
from nat_dynamo_plugin.admission.limits import AdaptiveLimit
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.layers.admission import AdmissionLayer, _work_tokens
from nat_dynamo_plugin.layers.learning import LearningLayer
from nat_dynamo_plugin.learning.learner import Chain, WorkLearner
from nat_dynamo_plugin.plan.serving import ServingPlan
from nat_dynamo_plugin.question.hints import DynamoHints, PrefixHints
from nat_dynamo_plugin.question.prefix import CallIdentity, PrefixTemplate, surrounding_ids
from nat_dynamo_plugin.telemetry.record import CallRecord


class Workload:
    """The two layers of an LLM, and its probe."""

    def __init__(
        self, learning: LearningLayer | None, admission: AdmissionLayer | None, probe: CapacityProbe | None
    ) -> None:
        self.learning = learning
        self.admission = admission
        self.probe = probe
        self.learner = None if learning is None else learning.learner
        self.gate = None if admission is None else admission.gate

    @property
    def is_crowded(self) -> bool:
        """Whether questions wait at the gate."""
        return self.admission is not None and self.admission.is_crowded()

    def close(self) -> None:
        """Write what was learned."""
        if self.learning is not None:
            self.learning.close()

    def expected(self, identity: CallIdentity, kind: str | None, hints: PrefixHints, call_index: int) -> PrefixHints:
        """See `LearningLayer.expected`."""
        return hints if self.learning is None else self.learning.expected(identity, kind, hints, call_index)

    def follow(self, plan: ServingPlan, template: PrefixTemplate, url: httpx.URL) -> FollowedCall:
        """Follow a call of this plan to this URL; call it in the context that the call is made in."""
        if self.probe is not None:
            self.probe.called(str(url))
        return FollowedCall(self, plan, surrounding_ids(template) if self.gate is not None else ())


class FollowedCall:
    """One call between its plan and its answer.

    Attributes:
        body: the request's, if it can be read.
    """

    def __init__(self, workload: Workload, plan: ServingPlan, around: tuple[str, ...]) -> None:
        self._workload = workload
        self._plan = plan
        self._around = around
        self._place: Place | None = None
        self._chain: Chain | None = None
        self.body: bytes | None = None
        scope, identity = DynamoHints.current(), plan.identity
        if workload.learner is not None:
            self._chain = workload.learner.count_call(
                session_id=identity.session_id,
                prefix_id=identity.prefix_id,
                path=identity.function_path,
                kind=None if scope is None else scope.kind,
            )

    def enter(self) -> None:
        """Wait at the gate, if there is one."""
        place = self._new_place()
        if place is not None:
            place.__enter__()

    async def enter_async(self) -> None:
        """Wait at the gate, if there is one, in the running event loop."""
        place = self._new_place()
        if place is not None:
            await place.__aenter__()

    def _new_place(self) -> Place | None:
        gate, plan = self._workload.gate, self._plan
        if gate is not None:
            self._place = gate.place(plan.identity.prefix_id, self._around, _work_tokens(plan), self.body)
        return self._place

    def ended(self, record: CallRecord) -> None:
        """The call has been answered or has failed."""
        record.calls_to_come = self._plan.hints.remaining_calls
        if self._place is not None:
            record.gate_wait_ms = self._place.waited_ms
            self._place.end(record)
        if self._chain is not None and self._workload.learning is not None:
            self._workload.learning._ended(self._chain, record)


def make_workload(config: DynamoModelConfig) -> Workload | None:
    """The workload that a config asks for, if it does.

    Raises:
        ValueError: `prefix_learned` holds something else than learned numbers.
    """
    learns = "auto" in (config.prefix_total_requests, config.prefix_osl, config.prefix_iat)
    limit = config.max_active_prefixes
    if not learns and limit is None:
        return None
    admission = probe = None
    if limit is not None:
        bound = AdaptiveLimit() if limit == "auto" else limit
        gate = Gate(bound, model=config.model_name, idle_s=config.prefix_idle, max_wait_s=config.prefix_max_wait)
        admission = AdmissionLayer(gate)
        if gate.adapts:
            probe = CapacityProbe(config.model_name, gate.on_capacity, verify=config.verify_ssl)
    try:
        learning = LearningLayer(WorkLearner(), config.prefix_learned) if learns else None
    except ValueError as error:
        raise ValueError(f"prefix_learned={str(config.prefix_learned)!r}: {error}") from error
    return Workload(learning, admission, probe)
