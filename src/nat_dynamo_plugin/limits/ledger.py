"""Where counts are kept: in this process, or in a Redis that several share. Counting is the package `limits`'."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import inf
from time import monotonic, time
from typing import Any

from nat_dynamo_plugin.limits.rules import Charge, Rule, Window
from nat_dynamo_plugin.locks import Lock

logger = logging.getLogger(__name__)

REDIS_TIMEOUT_S = 0.05
"""Longest wait for Redis (s)."""
AWAY_S = 5.0
"""For so long (s) a Redis that failed is not asked; calls pass meanwhile."""
_STEP_S = 0.002
"""How exact Redis is about a window's age (s)."""
_ANY = 2**52
"""A limit that nothing reaches: what was really taken is counted also where it is too much."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """What a call has taken of the rules, until it is known what it really took.

    Attributes:
        charges: what was taken.
        at: when, in seconds since the epoch.
    """

    charges: tuple[Charge, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Short:
    """There is no room.

    Attributes:
        rule: by which rule.
        wait_s: seconds until it is worth trying again.
    """

    rule: Rule
    wait_s: float


class Ledger:
    """Counts by rules, in sliding windows of the package `limits`, thread-safe.

    Args:
        storage: one of `limits.storage`.
        scope: before every name, so that servers and models do not share a count.
        blocking: whether it waits for a network, so that an event loop has to ask it from a thread.
    """

    def __init__(self, storage: Any, scope: str, *, blocking: bool = False) -> None:
        self._storage = storage
        self._scope = scope
        self._lock = Lock()
        self.blocking = blocking
        self._items: dict[Rule, Any] = {}

    def take(self, wanted: Sequence[Charge], *, anyway: bool = False) -> Reserved | Short:
        """Take all of it, or nothing.

        Args:
            wanted: what is to be taken. More than a rule allows in all takes the whole window.
            anyway: take it also where there is no room.

        Returns:
            What was taken, or of what there is too little.
        """
        fitting = [replace(one, amount=min(one.amount, one.rule.whole)) for one in wanted]
        with self._lock:
            for number, one in enumerate(fitting):
                if one.amount > 0 and not self._hit(one, one.amount, one.rule.whole if not anyway else _ANY):
                    for taken in fitting[:number]:
                        self._hit(taken, -taken.amount, _ANY)
                    return Short(one.rule, max(0.001, self.window(one).wait_s(one.amount, one.rule.whole)))
        return Reserved(tuple(fitting), time())

    def settle(self, reserved: Reserved, real: Sequence[Charge]) -> None:
        """Count what was really taken in place of what was reserved, as long as the window still runs."""
        with self._lock:
            for taken, one in zip(reserved.charges, real, strict=True):
                more = one.amount - taken.amount
                # A window that is over keeps what it has: what would be given back would be free in the next one.
                if more > 0 or (more < 0 and time() - reserved.at <= self.window(one).age_s + _STEP_S):
                    self._hit(one, more, _ANY)

    def window(self, one: Charge) -> Window:
        """The counts that a charge is taken of."""
        item = self._item(one.rule)
        before, before_s, now, now_s = self._storage.get_sliding_window(self._key(one), item.get_expiry())
        return Window(before, before_s, now, now_s, float(item.get_expiry()))

    def _hit(self, one: Charge, amount: int, most: int) -> bool:
        if not amount:
            return True
        expiry = self._item(one.rule).get_expiry()
        return bool(self._storage.acquire_sliding_window_entry(self._key(one), most, expiry, amount))

    def _key(self, one: Charge) -> str:
        item = self._item(one.rule)
        key: str = item.key_for(self._scope, one.rule.unit, one.name)
        return key

    def _item(self, rule: Rule) -> Any:
        item = self._items.get(rule)
        if item is None:
            from limits import RateLimitItemPerSecond

            item = self._items[rule] = RateLimitItemPerSecond(rule.whole, rule.window_s, namespace="nat-dynamo")
        return item


class OpenLedger:
    """A ledger in Redis that lets calls pass while Redis is away, and says so once.

    Args:
        ledger: the one in Redis.
        clock: seconds, never going back.
    """

    blocking = True

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._away_until = -inf
        self._is_away = False
        self._settling = ThreadPoolExecutor(1, "nat-dynamo-limits")

    def take(self, wanted: Sequence[Charge], *, anyway: bool = False) -> Reserved | Short:
        """See `Ledger.take`; without Redis everything is taken."""
        taken = self._try(lambda: self._ledger.take(wanted, anyway=anyway))
        return Reserved((), time()) if taken is None else taken

    def settle(self, reserved: Reserved, real: Sequence[Charge]) -> None:
        """See `Ledger.settle`; done in a thread, for the end of a call must not wait."""
        if reserved.charges:
            self._settling.submit(self._try, lambda: self._ledger.settle(reserved, real))

    def settled(self) -> None:
        """Wait until everything is counted."""
        self._settling.submit(bool).result()

    def _try(self, ask: Callable[[], Any]) -> Any:
        import redis

        if self._clock() < self._away_until:
            return None
        try:
            answer = ask()
        except (redis.RedisError, OSError) as error:
            self._away_until = self._clock() + AWAY_S
            if not self._is_away:
                logger.warning("limits: Redis is away (%s); calls pass without limits until it is back", error)
            self._is_away = True
            return None
        if self._is_away:
            self._is_away = False
            logger.warning("limits: Redis is back; limits are kept again")
        return answer


def memory_ledger(scope: str) -> Ledger:
    """Counts of this process."""
    from limits.storage import MemoryStorage

    return Ledger(MemoryStorage(), scope)


def redis_ledger(url: str, scope: str) -> OpenLedger:
    """Counts that all processes with this Redis share.

    Raises:
        ValueError: if it does not answer; the message has no password.
    """
    import redis
    from limits.storage import RedisStorage

    storage = RedisStorage(url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)
    try:
        storage.storage.ping()
    except (redis.RedisError, OSError) as error:
        raise ValueError(f"limits.redis_url: Redis does not answer: {error}") from None
    return OpenLedger(Ledger(storage, scope, blocking=True))
