"""Planner: gathers who calls and what is expected, counts the calls of each chain, and makes the plan.

One planner serves one LLM of a config, whatever clients are made of it, so that its counters are one truth.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from time import monotonic
from typing import Protocol

import httpx
from nat.builder.context import Context

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.dialects import Dialect, WireFields, load_dialects
from nat_dynamo_plugin.layers.workload import FollowedCall, Workload, make_workload
from nat_dynamo_plugin.plan.serving import ServingPlan, make_plan
from nat_dynamo_plugin.question.hints import CallPrediction, DynamoHints, PrefixHints, ScopeHints, resolve_hints
from nat_dynamo_plugin.question.prefix import CallIdentity, PrefixTemplate, current_identity

logger = logging.getLogger(__name__)

MAX_CHAINS = 16_384
"""Chains whose calls are counted at once; the least recently used is forgotten first."""
MAX_SAID = 1024
"""Plans whose headers and body fields are kept; the least recently used is forgotten first."""
CHAIN_TTL_S = 3600.0
"""Seconds after a chain's last call until its counter is forgotten."""


class PredictionLookup(Protocol):
    """What we use of NAT's prediction trie: a prediction by function path and 1-based call index."""

    def __call__(self, path: list[str], call_index: int) -> CallPrediction | None:
        """The prediction for a call, if there is one."""


class CallCounters:
    """How many calls each chain has made: bounded in number and age, safe across threads.

    On the path of every call, so it is an `OrderedDict` of its own, a sixth of the cost of a `cachetools.TTLCache`.
    """

    def __init__(
        self, max_chains: int = MAX_CHAINS, ttl_s: float = CHAIN_TTL_S, clock: Callable[[], float] = monotonic
    ) -> None:
        self._calls: OrderedDict[str, tuple[int, float]] = (
            OrderedDict()
        )  # calls made and when the last was, oldest first
        self._max_chains = max_chains
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()

    def next_index(self, chain: str) -> int:
        """0 for the chain's first call, then 1, 2, ..."""
        now = self._clock()
        calls = self._calls
        with self._lock:
            index, last = calls.get(chain, (0, now))
            if now - last > self._ttl_s:
                index = 0
            calls[chain] = (index + 1, now)
            calls.move_to_end(chain)
            oldest = next(iter(calls))
            if len(calls) > self._max_chains or now - calls[oldest][1] > self._ttl_s:
                del calls[oldest]  # one a call is enough, as a call adds one at most
        return index

    def __len__(self) -> int:
        return len(self._calls)


class Planner:
    """Makes the plan of each call of one LLM.

    Args:
        template: the client's `prefix_template`.
        hints: the config's hints.
        dialects: how plans are said.
        wire_names: the dialects' names, for telemetry.
        predictions: what a profile predicts, if there is one.
        max_sensitivity: largest latency sensitivity that is sent.
        workload: what is learned of the questions and how many may be under way; `None` for neither.
    """

    def __init__(
        self,
        template: PrefixTemplate,
        hints: PrefixHints,
        *,
        dialects: tuple[Dialect, ...],
        wire_names: tuple[str, ...] = (),
        predictions: PredictionLookup | None = None,
        max_sensitivity: int = 1000,
        workload: Workload | None = None,
    ) -> None:
        self._template = template
        self._hints = hints
        self._dialects = dialects
        self.wire_names = wire_names
        self._predictions = predictions
        self._max_sensitivity = max_sensitivity
        self._counters = CallCounters()
        self.workload = workload
        # Most calls of a chain have the plan of the call before; dialects are pure, so what was said can be said again.
        self.say = lru_cache(maxsize=MAX_SAID)(self._say)

    @classmethod
    def from_config(cls, config: DynamoModelConfig) -> Planner | None:
        """The planner of a config, or `None` where prefixes and hints are turned off.

        Raises:
            ValueError: if the prediction trie can not be read.
        """
        if not config.hints_enabled or config.prefix_template is None:
            return None
        return cls(
            PrefixTemplate(config.prefix_template),
            config.prefix_hints,
            dialects=load_dialects(config.prefix_wire),
            wire_names=tuple(config.prefix_wire),
            predictions=load_predictions(config) if config.prefix_predictions else None,
            max_sensitivity=config.max_sensitivity,
            workload=make_workload(config),
        )

    def plan_call(self) -> tuple[int, ServingPlan]:
        """Index and plan of a call made now, from this context; counts the call."""
        context = Context.get()
        identity = current_identity(self._template, context)
        index = self._counters.next_index(identity.session_id)
        scope = DynamoHints.current()
        hints = self._resolve(context, scope, identity, index)
        if self.workload is None:
            return index, make_plan(identity, hints, index)
        hints = self.workload.expected(identity, None if scope is None else scope.kind, hints, index)
        return index, make_plan(identity, hints, index, crowded=self.workload.is_crowded)

    def follow(self, plan: ServingPlan, url: httpx.URL) -> FollowedCall | None:
        """What has to be told of the call's course, if anybody wants to know; from the context of the call."""
        return None if self.workload is None else self.workload.follow(plan, self._template, url)

    def close(self) -> None:
        """Keep what was learned."""
        if self.workload is not None:
            self.workload.close()

    def _resolve(
        self, context: Context, scope: ScopeHints | None, identity: CallIdentity, call_index: int
    ) -> PrefixHints:
        prediction = None
        if self._predictions is not None:
            try:
                prediction = self._predictions(list(identity.function_path), call_index + 1)
            except Exception:
                # A hint must never make a call fail.
                logger.warning("The prediction trie failed for %s", identity.function_path, exc_info=True)
        sensitivity = (
            max(0, min(context.latency_sensitivity, self._max_sensitivity))
            if context.has_manual_latency_sensitivity
            else None
        )
        return resolve_hints(
            config=self._hints,
            call_index=call_index,
            scope=scope,
            prediction=prediction,
            manual_sensitivity=sensitivity,
        )

    def _say(self, plan: ServingPlan) -> WireFields:
        """The plan in all of this planner's dialects."""
        headers: tuple[tuple[bytes, bytes], ...] = ()
        agent_hints: tuple[tuple[str, int | float | bool], ...] = ()
        annotations: tuple[str, ...] = ()
        for dialect in self._dialects:
            said = dialect(plan)
            headers += said.headers
            agent_hints += said.agent_hints
            annotations += said.annotations
        return WireFields(headers, agent_hints, annotations)


def load_predictions(config: DynamoModelConfig) -> PredictionLookup:
    """NAT's own reader of a prediction trie, as a lookup.

    Raises:
        ValueError: if the file is missing or no prediction trie.
    """
    from nat.profiler.prediction_trie import load_prediction_trie
    from nat.profiler.prediction_trie.trie_lookup import PredictionTrieLookup

    path = config.prefix_predictions
    assert path is not None
    try:
        find = PredictionTrieLookup(load_prediction_trie(path)).find
    except FileNotFoundError:
        raise ValueError(f"prefix_predictions={str(path)!r}: there is no such file") from None
    except Exception as error:
        raise ValueError(f"prefix_predictions={str(path)!r} is no prediction trie: {error}") from error
    return _as_lookup(find)


def _as_lookup(find: Callable[..., object]) -> PredictionLookup:
    from nat.profiler.prediction_trie.data_models import LLMCallPrediction

    def lookup(path: list[str], call_index: int) -> CallPrediction | None:
        found = find(path, call_index)
        if not isinstance(found, LLMCallPrediction):
            return None
        sensitivity = found.latency_sensitivity
        # A metric without samples is a default of zeros, not a prediction.
        return CallPrediction(
            remaining_calls=found.remaining_calls.mean if found.remaining_calls.sample_count else None,
            output_tokens=round(found.output_tokens.p90) or None,
            interarrival_ms=round(found.interarrival_ms.mean) or None,
            latency_sensitivity=None if sensitivity is None else float(sensitivity),
        )

    return lookup
