"""A call waits here until the rules of `limits:` have room for it, or is refused; what it really took is counted after.

It stands below the key, so that each attempt counts, as a provider counts it, and rules can be by key.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import anyio

from nat_dynamo_plugin.admission.concurrency import ConcurrencyLimit
from nat_dynamo_plugin.admission.slots import Slot, Slots
from nat_dynamo_plugin.admission.turn import in_loop
from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import IO, AsyncIO, Enter, Flow, Send, Sleep
from nat_dynamo_plugin.limits.ledger import Reserved, Short
from nat_dynamo_plugin.limits.rules import MICRO_USD, Charge, Estimates, Part, Rule, Unit, charges, real_tokens
from nat_dynamo_plugin.question.org import current_org, org_digest
from nat_dynamo_plugin.telemetry.kinds import Kind
from nat_dynamo_plugin.telemetry.record import CallRecord

logger = logging.getLogger(__name__)

LOOK_S = 0.25
"""A call that waits looks again after so long (s) at most: another one may have taken less than it had reserved."""
REFUSED = 429
MAX_MODELS = 1000
"""Models of which is remembered what their calls take."""


class Store(Protocol):
    """Where counts are kept; see `limits.ledger`."""

    blocking: bool

    def take(self, wanted: tuple[Charge, ...], *, anyway: bool = False) -> Reserved | Short:
        """Take all of it, or nothing."""

    def settle(self, reserved: Reserved, real: tuple[Charge, ...]) -> None:
        """Count what was really taken instead."""


class Take:
    """Takes of a store: what a flow yields for one that may wait for a network. Gives `Reserved`, or `Short`."""

    __slots__ = ("_store", "_wanted")

    def __init__(self, store: Store, wanted: tuple[Charge, ...]) -> None:
        self._store = store
        self._wanted = wanted

    def run(self, io: IO) -> Reserved | Short:
        """Ask, blocking. In an event loop, which waiting would stop, there is room for everything."""
        return self._store.take(self._wanted, anyway=in_loop())

    async def run_async(self, io: AsyncIO) -> Reserved | Short:
        """Ask, in a thread if it may block."""
        if not self._store.blocking:
            return self._store.take(self._wanted)
        return await anyio.to_thread.run_sync(self._store.take, self._wanted)


class Turnstile(Slots):
    """Lets one call at a time look whether there is room, in the order in which they were made."""

    def __init__(self, server: str) -> None:
        super().__init__(ConcurrencyLimit(1, adapts=False), server)

    def find_lost(self, asked: float) -> None:
        """Nothing is lost here: who is in it looks, and has no answer to drop."""


@dataclass(slots=True)
class _Attempt:
    reserved: Reserved
    names: dict[Part, str]
    model: str
    size: int
    number: int = 0
    spent: float = 0.0  # by the call's attempts before, in USD
    is_over: bool = False


class LimitsLayer:
    """Keeps calls within rules.

    Args:
        rules: all must have room.
        store: where counts are kept.
        server: named in messages.
        wait: whether calls wait for room; else they are refused at once.
        max_wait_s: longest wait of a call, in seconds. A budget in USD is not waited for.
        cached_weight: what a token counts that the server had in its cache, 0 to 1.
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        store: Store,
        server: str,
        *,
        wait: bool = True,
        max_wait_s: float = 60.0,
        cached_weight: float = 1.0,
    ) -> None:
        self._rules = rules
        self._units = frozenset(rule.unit for rule in rules)
        self._parts = frozenset(part for rule in rules for part in rule.by)
        self._store = store
        self._server = server
        self._wait = wait
        self._max_wait_s = max_wait_s
        self._cached_weight = cached_weight
        self._under_way: set[int] = set()  # of attempts; a set, for adding and taking out are atomic
        self._estimates: OrderedDict[str, Estimates] = OrderedDict()
        self._turnstiles: weakref.WeakValueDictionary[tuple[str, ...], Turnstile] = weakref.WeakValueDictionary()

    def flow(self, call: Call, send: Send) -> Flow:
        """Wait for room, send, and count what was taken."""
        attempt, wanted = self._asked(call)
        key = tuple(attempt.names.values())
        turnstile = self._turnstiles.get(key) or self._turnstiles.setdefault(key, Turnstile(self._server))
        slot = turnstile.slot(call.record.started_at)
        try:
            taken = yield from self._take(call, slot, wanted)
        finally:
            slot.leave(answered=True)
        if isinstance(taken, Short):
            return self._refused(call, taken)
        attempt.reserved = taken
        attempt.spent = call.record.cost_usd or 0.0
        self._under_way.add(id(attempt))
        # Before it is sent: so it is called after the layer further in that says what the answer has cost.
        call.on_end(partial(self._ended, attempt))
        try:
            reply = yield from send(call)
        except BaseException:
            self._failed(attempt, call.record)
            raise
        attempt.number = call.record.attempts
        if reply.status >= 400:
            self._failed(attempt, call.record)
        return reply

    def _take(self, call: Call, slot: Slot, wanted: tuple[Charge, ...]) -> Any:
        if not slot.try_enter():
            try:
                yield Enter(slot)
            except TimeoutError:
                if call.left_s <= 0:
                    raise
                return Short(self._rules[0], 0.0)
            finally:
                call.record.limit_wait_ms += slot.waited_s * 1000.0
        while True:
            taken = yield Take(self._store, wanted)
            if isinstance(taken, Reserved):
                return taken
            waited = call.record.limit_wait_ms / 1000.0
            # With nothing under way nothing is given back, so that it takes as long as it takes.
            sure = 0.0 if self._under_way else taken.wait_s
            is_budget = taken.rule.unit == "usd"
            if (
                is_budget
                or not self._wait
                or waited >= self._max_wait_s
                or sure > min(self._max_wait_s - waited, call.left_s)
            ):
                return taken
            pause = min(taken.wait_s, LOOK_S)
            call.record.limit_wait_ms += pause * 1000.0
            yield Sleep(pause)

    def _asked(self, call: Call) -> tuple[_Attempt, tuple[Charge, ...]]:
        names: dict[Part, str] = {}
        model = call.record.request_model or ""
        if "org" in self._parts:
            org = current_org()
            names["org"] = "" if org is None else org_digest(org)
        if "key" in self._parts:
            names["key"] = key_name(call)
        if "model" in self._parts:
            names["model"] = model
        body = call.body.raw
        estimates = self._of(model)
        tokens = estimates.tokens(body) if "tokens" in self._units else None
        # Something, so that a budget which is spent already refuses also whom it knows nothing of.
        amounts = self._amounts(1, tokens, max(1, estimates.micro_usd))
        attempt = _Attempt(Reserved((), 0.0), names, model, 0 if body is None else len(body))
        return attempt, charges(self._rules, names, amounts)

    def _of(self, model: str) -> Estimates:
        found = self._estimates.get(model)
        if found is None:
            found = self._estimates[model] = Estimates()
            while len(self._estimates) > MAX_MODELS:
                self._estimates.popitem(last=False)
        return found

    @staticmethod
    def _amounts(requests: int, tokens: int | None, usd: int | None) -> dict[Unit, int | None]:
        return {"requests": requests, "tokens": tokens, "usd": usd}

    def _failed(self, attempt: _Attempt, record: CallRecord) -> None:
        """There is no answer, but one that was none may be on the bill."""
        attempt.is_over = True
        billed = record.cost_usd is not None and record.cost_usd > attempt.spent
        tokens, usd = 0, round(self._usd_of(attempt, record) * MICRO_USD)
        if billed:
            tokens = real_tokens(record, self._cached_weight) or 0
            self._of(attempt.model).learn(record, attempt.size, usd)
        self._settle(attempt, self._amounts(1, tokens, usd))

    def _ended(self, attempt: _Attempt, record: CallRecord) -> None:
        if attempt.is_over:
            return
        if record.attempts != attempt.number:
            self._under_way.discard(id(attempt))
            return  # it was made again; what it took nobody said, so what was reserved stands
        usd = None if record.cost_usd is None else round(self._usd_of(attempt, record) * MICRO_USD)
        self._of(attempt.model).learn(record, attempt.size, usd)
        self._settle(attempt, self._amounts(1, real_tokens(record, self._cached_weight), usd))

    @staticmethod
    def _usd_of(attempt: _Attempt, record: CallRecord) -> float:
        """What this attempt has cost, of what all of the call's have; 0 where nobody knows."""
        return max(0.0, (record.cost_usd or 0.0) - attempt.spent)

    def _settle(self, attempt: _Attempt, amounts: dict[Unit, int | None]) -> None:
        self._under_way.discard(id(attempt))
        reserved = attempt.reserved
        if not reserved.charges:
            return
        real = []
        for one in reserved.charges:
            amount = amounts[one.rule.unit]
            real.append(one if amount is None else Charge(one.rule, one.name, amount))
        self._store.settle(reserved, tuple(real))

    def _refused(self, call: Call, short: Short) -> Reply:
        rule, wait = short.rule, short.wait_s
        is_budget = rule.unit == "usd"
        kind = Kind.BUDGET if is_budget else Kind.LIMITED
        what = "the budget is spent" if is_budget else "the limit is reached"
        again = "" if math.isinf(wait) else f"; room in {wait:.0f} s" if wait >= 1 else "; room within a second"
        message = f"limits: {what}: {rule}{again}. Nothing was sent to {self._server}"
        call.record.error, call.record.error_type = message, kind.value
        body = {"error": {"message": message, "type": kind.value, "param": None, "code": kind.value}}
        # The retry layer, and OpenAI's library, are not to try what was waited for already.
        headers = {"x-should-retry": "false"}
        if not math.isinf(wait):
            headers["retry-after"] = str(max(1, math.ceil(wait)))
        return Reply.made(REFUSED, json.dumps(body).encode(), headers)


def key_name(call: Call) -> str:
    """What stands for a call's key; from it nobody learns the key."""
    return _name(call.headers.get("authorization") or "")


@lru_cache(maxsize=256)
def _name(header: str) -> str:
    return hashlib.blake2b(header.encode(), digest_size=12, person=b"nat-dynamo-limit").hexdigest()
