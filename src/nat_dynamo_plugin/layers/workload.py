"""Workload: what one LLM's clients know of their questions under way: what is learned of them, and who may go.

One workload serves all clients of an LLM. It exists only where a config asks for it, so others pay nothing.
"""

from __future__ import annotations

import logging
import weakref
from dataclasses import replace
from pathlib import Path

import httpx

from nat_dynamo_plugin.admission.capacity import CapacityProbe
from nat_dynamo_plugin.admission.gate import Gate, Pass
from nat_dynamo_plugin.admission.limits import AdaptiveLimit
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.learning.learner import WorkLearner
from nat_dynamo_plugin.plan.serving import HALF_PRIORITY_TOKENS, ServingPlan
from nat_dynamo_plugin.question.endings import on_question_end
from nat_dynamo_plugin.question.hints import PrefixHints
from nat_dynamo_plugin.question.identity import CallIdentity
from nat_dynamo_plugin.telemetry.record import CallRecord

logger = logging.getLogger(__name__)


class Workload:
    """Learns from the calls of an LLM, and holds their gate.

    Args:
        learner: learns and predicts; `None` if nothing is `auto`.
        gate: bounds the questions under way; `None` for no bound.
        file: where the learned numbers are read from, if it is there, and written to in the end.
        probe: asks what the cluster can hold; `None` where the gate does not want to know.

    Raises:
        ValueError: the file holds something else.
    """

    def __init__(
        self,
        learner: WorkLearner | None,
        gate: Gate | None,
        file: Path | None = None,
        *,
        probe: CapacityProbe | None = None,
    ) -> None:
        self.learner = learner
        self.gate = gate
        self._probe = probe
        self._save: weakref.finalize[[WorkLearner, Path], Workload] | None = None
        if learner is not None and file is not None:
            if file.exists():
                learner.load(file)
            # Also when the interpreter ends, for clients that nobody closes.
            self._save = weakref.finalize(self, _save, learner, file)
        on_question_end(self)

    def is_crowded(self) -> bool:
        """Whether questions wait at the gate."""
        return self.gate is not None and self.gate.waiting > 0

    def close(self) -> None:
        """Write what was learned."""
        if self._save is not None:
            self._save()

    def question_ended(self, prefix_id: str) -> None:
        """Count the question's calls, and give its place to the next one."""
        if self.learner is not None:
            self.learner.end_question(prefix_id)
        if self.gate is not None:
            self.gate.end(prefix_id)

    def expected(self, identity: CallIdentity, kind: str | None, hints: PrefixHints, call_index: int) -> PrefixHints:
        """The hints, with what was learned where nobody knows better; counts the call."""
        if self.learner is None:
            return hints
        expected = self.learner.begin_call(
            session_id=identity.session_id, prefix_id=identity.prefix_id, path=identity.function_path, kind=kind
        )
        if expected is None:
            return hints
        # Only a person can say that there will be one call and no more, so that it needs no session.
        total = max(2, call_index + 1 + round(expected.remaining_calls))
        known = hints.total_is_known or hints.total_requests is not None
        tokens, gap = expected.output_tokens, expected.interarrival_ms
        return replace(
            hints,
            total_requests=hints.total_requests if known else total,
            remaining_calls=hints.remaining_calls if known else expected.remaining_calls,
            total_is_known=hints.total_is_known or not known,
            osl=max(1, round(tokens)) if hints.osl is None and tokens is not None else hints.osl,
            iat=max(1, round(gap)) if hints.iat is None and gap is not None else hints.iat,
        )

    def follow(self, plan: ServingPlan, url: httpx.URL) -> FollowedCall:
        """Follow a call of this plan to this URL."""
        if self._probe is not None:
            self._probe.called(url)
        return FollowedCall(self, plan, plan.identity.around)


class FollowedCall:
    """One call between its plan and its answer.

    Attributes:
        body: the request's, if it can be read.
    """

    __slots__ = ("_around", "_pass", "_plan", "_workload", "body")

    def __init__(self, workload: Workload, plan: ServingPlan, around: tuple[str, ...]) -> None:
        self._workload = workload
        self._plan = plan
        self._around = around
        self._pass: Pass | None = None
        self.body: bytes | None = None

    def enter(self) -> None:
        """Wait at the gate, if there is one."""
        gate = self._workload.gate
        if gate is not None:
            entry = self._begin(gate)
            if entry.ticket is not None:
                gate.wait(entry)
            self._pass = entry

    async def enter_async(self) -> None:
        """Wait at the gate, if there is one, in the running event loop."""
        gate = self._workload.gate
        if gate is not None:
            entry = self._begin(gate)
            if entry.ticket is not None:
                await gate.wait_async(entry)
            self._pass = entry

    def _begin(self, gate: Gate) -> Pass:
        plan = self._plan
        work = plan.work_tokens
        if work is not None:
            work += HALF_PRIORITY_TOKENS if plan.expected_output_tokens is None else plan.expected_output_tokens
        body, self.body = self.body, None
        return gate.begin(plan.identity.prefix_id, self._around, work, body)

    def ended(self, record: CallRecord) -> None:
        """The call has been answered or has failed."""
        entry, self._pass = self._pass, None
        if entry is not None and entry.waited_ms is not None:
            record.gate_wait_ms = entry.waited_ms
        if self._workload.learner is not None and record.status == 200:
            self._workload.learner.end_call(
                session_id=self._plan.identity.session_id,
                output_tokens=record.completion_tokens,
                started_at=record.started_at,
                ended_at=record.started_at + (record.client_total_ms or 0.0) / 1000.0,
            )
        if entry is not None and self._workload.gate is not None:
            self._workload.gate.end_call(entry, record)


def make_workload(config: DynamoModelConfig) -> Workload | None:
    """The workload that a config asks for, if it does.

    Raises:
        ValueError: `prefix_learned` holds something else than learned numbers.
    """
    learns = "auto" in (config.prefix_total_requests, config.prefix_osl, config.prefix_iat)
    limit = config.max_active_prefixes
    if not learns and limit is None:
        return None
    gate = probe = None
    if limit is not None:
        gate = Gate(
            AdaptiveLimit() if limit == "auto" else limit,
            model=config.model_name,
            idle_s=config.prefix_idle,
            max_wait_s=config.prefix_max_wait,
        )
        if gate.adapts:
            probe = CapacityProbe(config.model_name, gate.on_capacity, verify=config.verify_ssl)
    try:
        return Workload(WorkLearner() if learns else None, gate, config.prefix_learned, probe=probe)
    except ValueError as error:
        raise ValueError(f"prefix_learned={str(config.prefix_learned)!r}: {error}") from error


def _save(learner: WorkLearner, file: Path) -> None:
    try:
        learner.save(file)
    except OSError as error:
        logger.warning("What was learned could not be written to %s: %s", file, error)
