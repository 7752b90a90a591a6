"""What calls take is noted here, and said of those to come where the config's hints are `auto`."""

from __future__ import annotations

import logging
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.http.flow import Flow, Send
from nat_dynamo_plugin.learning.learner import Chain, WorkLearner
from nat_dynamo_plugin.question.endings import on_question_end
from nat_dynamo_plugin.question.hints import DynamoHints, PrefixHints
from nat_dynamo_plugin.question.identity import CallIdentity
from nat_dynamo_plugin.telemetry.record import CallRecord

logger = logging.getLogger(__name__)


class LearningLayer:
    """Learns from the calls of an LLM.

    Args:
        learner: learns and predicts.
        file: where the learned numbers are read from, if it is there, and written to in the end.

    Raises:
        ValueError: the file holds something else.
    """

    def __init__(self, learner: WorkLearner, file: Path | None = None) -> None:
        self.learner = learner
        self._save: weakref.finalize[[WorkLearner, Path], LearningLayer] | None = None
        if file is not None:
            if file.exists():
                learner.load(file)
            # Also when the interpreter ends, for clients that nobody closes.
            self._save = weakref.finalize(self, _save, learner, file)
        on_question_end(self)

    def flow(self, call: Call, send: Send) -> Flow:
        """Count the call, send it, and note in the end what it took."""
        turn = call.turn
        if turn is not None:
            identity, scope = turn.identity, DynamoHints.current()
            chain = self.learner.count_call(
                session_id=identity.session_id,
                prefix_id=identity.prefix_id,
                path=identity.function_path,
                kind=None if scope is None else scope.kind,
            )
            call.on_end(partial(self._ended, chain))
        return send(call)

    def expected(self, identity: CallIdentity, kind: str | None, hints: PrefixHints, call_index: int) -> PrefixHints:
        """A call's hints, with what was learned where nobody knows better.

        Args:
            identity: who makes the call.
            kind: the kind of question, if the caller names one.
            hints: what is known otherwise.
            call_index: 0 for the chain's first call.
        """
        expected = self.learner.expect(identity.function_path, kind, call_index)
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

    def question_ended(self, prefix_id: str) -> None:
        """The question has made all its calls."""
        self.learner.end_question(prefix_id)

    def close(self) -> None:
        """Write what was learned."""
        if self._save is not None:
            self._save()

    def _ended(self, chain: Chain, record: CallRecord) -> None:
        if record.status == 200:
            self.learner.end_call(
                chain,
                output_tokens=record.completion_tokens,
                started_at=record.started_at,
                ended_at=record.started_at + (record.client_total_ms or 0.0) / 1000.0,
            )


def _save(learner: WorkLearner, file: Path) -> None:
    try:
        learner.save(file)
    except OSError as error:
        logger.warning("What was learned could not be written to %s: %s", file, error)
