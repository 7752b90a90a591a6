"""A request waits here until the provider has room for it, by what its answers say of its limits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any

from nat_dynamo_plugin.admission.turn import in_loop
from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import IO, AsyncIO, Enter, Flow, Send, Sleep
from nat_dynamo_plugin.layers.limits import LOOK_S, REFUSED, Turnstile, key_name
from nat_dynamo_plugin.layers.retry import wish_of
from nat_dynamo_plugin.limits.headers import Unit, told
from nat_dynamo_plugin.limits.pace import Pace
from nat_dynamo_plugin.limits.rules import Estimates
from nat_dynamo_plugin.locks import Lock
from nat_dynamo_plugin.telemetry.record import CallRecord

FIRST_S = 0.02
"""How often is looked (s) whether the first answer has come."""
MAX_PACES = 256
"""Keys and models that are paced."""


class _Paced:
    """What is known of one key and model."""

    def __init__(self, server: str) -> None:
        self.pace = Pace()
        self.turnstile = Turnstile(server)
        self.estimates = Estimates()


class MayGo:
    """Asks whether a request may go, and lets it; gives its number, or the seconds to wait (below 0: look soon)."""

    __slots__ = ("_ask",)

    def __init__(self, ask: Callable[[bool], tuple[int, float]]) -> None:
        self._ask = ask

    def run(self, io: IO) -> tuple[int, float]:
        """Blocking; in an event loop, which waiting would stop, it may."""
        return self._ask(in_loop())

    async def run_async(self, io: AsyncIO) -> tuple[int, float]:
        """In an event loop."""
        return self._ask(False)


class PacingLayer:
    """Spreads requests so that a provider that says its limits refuses none of them.

    Args:
        server: named in messages.
        clock: seconds, never going back.
    """

    def __init__(self, server: str, clock: Callable[[], float] = monotonic) -> None:
        self._server = server
        self._clock = clock
        self._lock = Lock()
        self._known: OrderedDict[tuple[str, str], _Paced] = OrderedDict()

    def flow(self, call: Call, send: Send) -> Flow:
        """Wait until it may go, send, and read what was said."""
        paced = self._of((key_name(call), call.record.request_model or ""))
        body = call.body.raw
        amounts: dict[Unit, float] = {"requests": 1.0, "tokens": float(paced.estimates.tokens(body))}
        slot = paced.turnstile.slot(call.record.started_at)
        try:
            if not slot.try_enter():
                try:
                    yield Enter(slot)
                finally:
                    call.record.limit_wait_ms += slot.waited_s * 1000.0
            number = yield from self._go(call, paced, amounts)
        finally:
            slot.leave(answered=True)
        try:
            reply: Reply = yield from send(call)
        except BaseException:
            with self._lock:
                paced.pace.failed(number)
            raise
        with self._lock:
            paced.pace.answered(number, told(reply.headers), self._clock())
            if reply.status == REFUSED:
                paced.pace.refused(wish_of(reply.headers), self._clock())
        size = 0 if body is None else len(body)

        def learn(record: CallRecord) -> None:
            paced.estimates.learn(record, size, None)

        if reply.status < 400:
            call.on_end(learn)
        return reply

    def _go(self, call: Call, paced: _Paced, amounts: dict[Unit, float]) -> Any:
        def ask(anyway: bool) -> tuple[int, float]:
            with self._lock:
                now = self._clock()
                wait = 0.0 if anyway else paced.pace.wait_s(amounts, now)
                return (paced.pace.send(amounts, now), 0.0) if wait == 0.0 else (0, FIRST_S if wait is None else wait)

        while True:
            number, wait = yield MayGo(ask)
            if number:
                return number
            pause = min(wait, LOOK_S)
            call.record.limit_wait_ms += pause * 1000.0
            yield Sleep(pause)

    def _of(self, key: tuple[str, str]) -> _Paced:
        with self._lock:
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = _Paced(self._server)
                while len(self._known) > MAX_PACES:
                    self._known.popitem(last=False)
            return found
