"""Planner: who calls, what is expected, and which call of its chain it is, made into a plan and said.

One planner serves one LLM of a config, whatever clients are made of it, so that its counters are one truth.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from nat_dynamo_plugin.plan.counters import CallCounters
from nat_dynamo_plugin.plan.predictions import PredictionLookup
from nat_dynamo_plugin.plan.serving import ServingPlan, make_plan
from nat_dynamo_plugin.question.hints import CallPrediction, DynamoHints, PrefixHints, ScopeHints, resolve_hints
from nat_dynamo_plugin.question.identity import CallIdentity, current_identity, manual_sensitivity
from nat_dynamo_plugin.question.ids import PrefixTemplate
from nat_dynamo_plugin.question.once import warn_once

logger = logging.getLogger(__name__)

S = TypeVar("S")

Expect = Callable[[CallIdentity, str | None, PrefixHints, int], PrefixHints]
"""Refines the hints of a call by what was learned: who calls, the question's kind, the hints, the call's index."""


@dataclass(slots=True)
class Turn(Generic[S]):
    """One call's place in its chain, and what is asked of the server for it. Never changed.

    Attributes:
        index: 0 for the chain's first call.
        identity: whose call it is.
        plan: what is asked of the server.
        said: the plan in the server's words.
    """

    index: int
    identity: CallIdentity
    plan: ServingPlan
    said: S


class Planner(Generic[S]):
    """Takes the turns of the calls of one LLM.

    Args:
        template: the config's `prefix_template`.
        hints: the config's hints.
        say: puts a plan into the server's words; must not raise.
        predictions: what a profile predicts, if there is one.
        max_sensitivity: largest latency sensitivity that is sent, whoever gave it.
        expect: what was learned of questions like the one at hand; counts nothing. `None` if nothing is learned.
        crowded: whether questions wait for room in the KV caches.
        counters: where calls are counted; several LLMs of one server may count together.

    Raises:
        ValueError: for a template that is none.
    """

    def __init__(
        self,
        template: str | PrefixTemplate,
        hints: PrefixHints,
        *,
        say: Callable[[ServingPlan], S],
        predictions: PredictionLookup | None = None,
        max_sensitivity: int = 1000,
        expect: Expect | None = None,
        crowded: Callable[[], bool] | None = None,
        counters: CallCounters | None = None,
    ) -> None:
        self._template = PrefixTemplate(template) if isinstance(template, str) else template
        self._hints = hints
        self._say = say
        self._predictions = predictions
        self._max_sensitivity = max_sensitivity
        self._expect = expect
        self._crowded = crowded
        self.counters = CallCounters() if counters is None else counters

    def next_turn(self) -> Turn[S]:
        """The turn of a call made now, from this context; counts the call.

        What is learned, predicted or said by others never makes a call fail: the call goes on without it.
        """
        identity = current_identity(self._template)
        index = self.counters.next_index(identity.session_id, identity.prefix_id)
        scope = DynamoHints.current()
        hints = resolve_hints(
            config=self._hints,
            call_index=index,
            scope=scope,
            prediction=None if self._predictions is None else self._predicted(self._predictions, identity, index),
            manual_sensitivity=self._cut(manual_sensitivity()),
        )
        crowded = False
        if self._expect is not None:
            hints = self._expected(self._expect, identity, scope, hints, index)
        if self._crowded is not None:
            crowded = self._crowded()
        plan = make_plan(identity, hints, index, crowded=crowded)
        return Turn(index, identity, plan, self._say(plan))

    def _cut(self, sensitivity: int | None) -> int | None:
        return None if sensitivity is None else max(0, min(sensitivity, self._max_sensitivity))

    def _predicted(self, lookup: PredictionLookup, identity: CallIdentity, index: int) -> CallPrediction | None:
        try:
            found = lookup(list(identity.function_path), index + 1)
        except Exception as error:
            path = identity.function_path
            warn_once(logger, ("predictions", *path), "The prediction trie failed for %s", path, error=error)
            return None
        if found is None or found.latency_sensitivity is None:
            return found
        sensitivity = max(0.0, min(found.latency_sensitivity, float(self._max_sensitivity)))
        return replace(found, latency_sensitivity=sensitivity)

    @staticmethod
    def _expected(
        expect: Expect, identity: CallIdentity, scope: ScopeHints | None, hints: PrefixHints, index: int
    ) -> PrefixHints:
        try:
            return expect(identity, None if scope is None else scope.kind, hints, index)
        except Exception as error:
            warn_once(logger, ("expect",), "What was learned could not be used", error=error)
            return hints
