"""From a config to the layers that stand between callers and a server that fails; what they know is one server's."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, TypeVar

from nat_dynamo_plugin.admission.concurrency import ConcurrencyLimit
from nat_dynamo_plugin.admission.slots import Slots
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.http.flow import Layer
from nat_dynamo_plugin.layers.breaker import BreakerLayer, Circuit
from nat_dynamo_plugin.layers.concurrency import ConcurrencyLayer
from nat_dynamo_plugin.layers.deadline import DeadlineLayer
from nat_dynamo_plugin.layers.limits import LimitsLayer
from nat_dynamo_plugin.layers.pacing import PacingLayer
from nat_dynamo_plugin.layers.retry import RetryLayer, RetryPolicy
from nat_dynamo_plugin.limits.ledger import memory_ledger, redis_ledger
from nat_dynamo_plugin.outages.breaker import BreakerSettings
from nat_dynamo_plugin.outages.budget import RetryBudget

T = TypeVar("T")
K = TypeVar("K")


def shared(known: weakref.WeakValueDictionary[K, T], key: K, make: Callable[[], T]) -> T:
    """What is known by this key, made if there is none."""
    found = known.get(key)
    return known.setdefault(key, make()) if found is None else found


class _Shared:
    """What LLMs of one server share, as long as one of them is in use."""

    def __init__(self) -> None:
        self.budgets: weakref.WeakValueDictionary[tuple[str, float], RetryBudget] = weakref.WeakValueDictionary()
        self.slots: weakref.WeakValueDictionary[tuple[str, bool], Slots] = weakref.WeakValueDictionary()
        self.limits: weakref.WeakValueDictionary[tuple[Any, ...], LimitsLayer] = weakref.WeakValueDictionary()
        self.paces: weakref.WeakValueDictionary[str, PacingLayer] = weakref.WeakValueDictionary()
        self.circuits: weakref.WeakValueDictionary[tuple[str, BreakerSettings], Circuit] = weakref.WeakValueDictionary()


_shared = _Shared()


def waiting(config: DynamoModelConfig) -> DeadlineLayer | None:
    """What bounds the time of calls that may wait in the response cache, before anybody knows their question."""
    call = config.deadlines.call
    return None if call is None or config.cache is None else DeadlineLayer(call)


def deadline(config: DynamoModelConfig) -> DeadlineLayer | None:
    """What bounds the time of calls, if anything does."""
    block = config.deadlines
    return None if block.call is block.question is None else DeadlineLayer(block.call, block.question)


def retry(config: DynamoModelConfig, origin: str) -> RetryLayer | None:
    """What makes calls again, if any are; the budget is the server's."""
    block = config.retry
    if not block.max_retries:
        return None
    policy = RetryPolicy(block.max_retries, block.statuses, block.texts, block.max_elapsed)
    ratio = block.budget
    if ratio is None:
        return RetryLayer(policy)
    budget = shared(_shared.budgets, (origin, ratio), lambda: RetryBudget(ratio, monotonic()))
    circuit = _circuit(config, origin)
    if circuit is None:
        return RetryLayer(policy, budget)
    return RetryLayer(policy, budget, held_back=lambda: circuit.is_open)


def concurrency(config: DynamoModelConfig, origin: str) -> ConcurrencyLayer | None:
    """What bounds the requests under way, unless there is no bound."""
    asked = config.admission.max_concurrency
    if asked is None:
        return None
    # A pool that is full would have calls wait in it unseen, and in no order.
    most = config.connection.max_connections if asked == "auto" else min(asked, config.connection.max_connections)
    adapts = asked == "auto"
    slots = shared(_shared.slots, (origin, adapts), lambda: Slots(ConcurrencyLimit(most, adapts=adapts), server=origin))
    slots.lower(most)
    return ConcurrencyLayer(slots)


def each_attempt(config: DynamoModelConfig, origin: str) -> Sequence[Layer | None]:
    """What holds back each attempt of a call, outermost first."""
    return limits(config, origin), pacing(config, origin), concurrency(config, origin), breaker(config, origin)


def limits(config: DynamoModelConfig, origin: str) -> LimitsLayer | None:
    """What keeps calls within the rules, if there are any; counts and order are the server's.

    Raises:
        ValueError: if the counts are to be in a Redis that does not answer.
    """
    block = config.limits
    if block is None or not block.rules:
        return None
    rules, url = tuple(one.rule for one in block.rules), block.redis

    def make() -> LimitsLayer:
        scope = hashlib.blake2b(origin.encode(), digest_size=8).hexdigest()
        return LimitsLayer(
            rules,
            memory_ledger(scope) if url is None else redis_ledger(url, scope),
            origin,
            wait=block.on_limit == "wait",
            max_wait_s=block.max_wait,
            cached_weight=block.cached_weight,
        )

    return shared(_shared.limits, (origin, rules, block.on_limit, block.max_wait, block.cached_weight, url), make)


def pacing(config: DynamoModelConfig, origin: str) -> PacingLayer | None:
    """What spreads requests by the provider's own limits, if that is asked for."""
    if config.limits is None or not config.limits.pace:
        return None
    return shared(_shared.paces, origin, lambda: PacingLayer(origin))


def breaker(config: DynamoModelConfig, origin: str) -> BreakerLayer | None:
    """What keeps calls from a server that is down, unless that is to be ignored."""
    block = config.breaker
    circuit = _circuit(config, origin)
    if circuit is None:
        return None
    return BreakerLayer(circuit, block.max_wait if block.on_outage == "wait" else 0.0)


def _circuit(config: DynamoModelConfig, origin: str) -> Circuit | None:
    block = config.breaker
    if block.on_outage == "ignore":
        return None
    settings = BreakerSettings(
        failure_rate=block.failure_rate,
        min_calls=block.min_calls,
        window_s=block.window,
        open_s=block.open_for,
        probes=block.probes,
    )
    return shared(_shared.circuits, (origin, settings), lambda: Circuit(settings, origin))
