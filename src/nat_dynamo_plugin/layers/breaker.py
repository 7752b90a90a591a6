"""A server that fails again and again is left alone: its calls wait until it is back, or fail at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import monotonic

from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import Failure, Flow, Send, Sleep
from nat_dynamo_plugin.layers.answer import refused
from nat_dynamo_plugin.locks import Lock
from nat_dynamo_plugin.outages.breaker import Breaker, BreakerSettings, Outcome, Ticket
from nat_dynamo_plugin.telemetry.kinds import Kind, classify
from nat_dynamo_plugin.telemetry.record import CallRecord

logger = logging.getLogger(__name__)

LOOK_S = 0.1
"""Seconds between looks while a probe is under way."""
UNAVAILABLE = 503
_OURS = frozenset({"local", "pool timeout", "deadline"})
"""Failures that say nothing about the server."""
_NOT_THE_SERVERS = frozenset({Kind.LEFT, Kind.CANCELLED, Kind.DEADLINE, Kind.TOO_LONG})
_SLOW_DOWN = frozenset({408, 429, 529})


class Circuit:
    """The breaker of one server, for all who call it: from any thread, loop and client.

    Args:
        settings: when it opens.
        server: named in the log and in errors.
        clock: seconds, never going back.
    """

    def __init__(self, settings: BreakerSettings, server: str, clock: Callable[[], float] = monotonic) -> None:
        self.server = server
        self.last_error = ""
        self._window_s = settings.window_s
        self._breaker = Breaker(settings)
        self._lock = Lock()
        self._clock = clock

    def admit(self) -> Ticket | float:
        """See `Breaker.admit`."""
        breaker = self._breaker
        ticket = breaker.ticket  # before the look, or it might be of the era that has just begun
        if not breaker.is_open:
            return ticket
        with self._lock:
            return breaker.admit(self._clock())

    @property
    def is_open(self) -> bool:
        """Whether calls are held back, so that a retry adds nothing to what the server has to bear."""
        return self._breaker.is_open

    def settle(self, ticket: Ticket, outcome: Outcome, why: str = "") -> None:
        """See `Breaker.settle`."""
        breaker = self._breaker
        good = outcome is Outcome.SUCCESS and not ticket.is_probe
        if good and ticket is breaker.ticket and breaker.answered(self._clock()):
            return
        with self._lock:
            now = self._clock()
            opened, was_open = breaker.opened, breaker.is_open
            breaker.settle(ticket, outcome, now)
            if outcome is Outcome.FAILURE:
                self.last_error = why
            of = breaker.failures(now) if breaker.opened > opened else None
            is_back = was_open and not breaker.is_open
        if of is not None:
            logger.warning(
                "%s has failed %d of %d calls in %g s (%s); it is left alone until a probe comes through",
                self.server,
                *of,
                self._window_s,
                why,
            )
        elif is_back:
            logger.warning("%s answers again", self.server)

    def words(self, wait_s: float) -> str:
        """What to tell the caller of a call that is not made."""
        when = f"the next try is in {wait_s:.1f} s" if wait_s > 0 else "a try is under way"
        return f"{self.server} has failed again and again, so it is not asked ({when}); last: {self.last_error}"


class BreakerLayer:
    """Keeps calls from a server that fails.

    Args:
        circuit: the server's, shared.
        max_wait_s: longest wait of a call until it is back, in seconds; 0 to fail at once.
    """

    def __init__(self, circuit: Circuit, max_wait_s: float) -> None:
        self.circuit = circuit
        self.max_wait_s = max_wait_s

    def flow(self, call: Call, send: Send) -> Flow:
        """Send, if the server may be asked."""
        circuit = self.circuit
        ticket = circuit.admit()
        record = call.record
        while not isinstance(ticket, Ticket):
            left = self.max_wait_s - record.outage_wait_ms / 1000.0  # of the call, however often it is made
            if left <= 0.001:
                return _not_made(call, circuit.words(ticket))
            wait = min(max(ticket, LOOK_S), left)
            yield Sleep(wait)
            record.outage_wait_ms += wait * 1000.0
            ticket = circuit.admit()
        outcome, why, goes_on = Outcome.NEITHER, "", False
        try:
            reply = yield from send(call)
            outcome, why = _outcome(reply, call)
            if ticket.is_probe and outcome is Outcome.NEITHER:
                outcome = Outcome.SUCCESS  # refused for overload, which a server is back for
            # Others wait for a probe, so its headers must do; of any other call the end decides.
            goes_on = (reply.content is None or record.streamed) and reply.status < 400 and not ticket.is_probe
        except Failure as failure:
            if failure.kind not in _OURS:
                outcome, why = Outcome.FAILURE, f"{type(failure.original).__name__}: {failure}"
            raise
        finally:
            if not goes_on:
                circuit.settle(ticket, outcome, why)
        if goes_on:
            call.on_end(partial(self._ended, ticket))
        return reply

    def _ended(self, ticket: Ticket, record: CallRecord) -> None:
        """A stream that breaks is a failure too, though its headers were none."""
        outcome = Outcome.SUCCESS if record.error is None else Outcome.FAILURE
        if record.kind in _NOT_THE_SERVERS:
            outcome = Outcome.NEITHER
        self.circuit.settle(ticket, outcome, record.error or "")


def _outcome(reply: Reply, call: Call) -> tuple[Outcome, str]:
    status = reply.status
    if status < 400:
        return Outcome.SUCCESS, ""
    why = f"{status} {call.record.error or ''}".strip()
    kind = classify(status, None, call.record.error or "")
    if kind is Kind.OVERLOAD or status in _SLOW_DOWN:
        return Outcome.NEITHER, why
    return (Outcome.FAILURE if status >= 500 or kind is Kind.NOT_READY else Outcome.SUCCESS), why


def _not_made(call: Call, words: str) -> Reply:
    reply = refused(call, UNAVAILABLE, words, Kind.CIRCUIT_OPEN.value)
    reply.headers.set("x-should-retry", "false")
    return reply
