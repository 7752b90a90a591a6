"""The one retry layer of all clients: a call is made again until the first byte of its answer is with the caller."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import inf
from time import monotonic
from typing import Any

from nat_dynamo_plugin.http.answers import MAX_UNARY_BYTES, error_text
from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import MAX_ERROR_BYTES, Close, Failure, Flow, Operation, ReadBody, Send, Sleep
from nat_dynamo_plugin.http.headers import Headers, number_in
from nat_dynamo_plugin.outages.budget import RetryBudget
from nat_dynamo_plugin.telemetry.kinds import Kind, classify

logger = logging.getLogger(__name__)

KINDS = frozenset({"connect", "connect timeout", "pool timeout", "write", "read", "protocol"})
"""Failures that are retried: no answer is being made. After a read timeout the server is still at work."""
BACKOFF_S = 0.25
"""The first wait is drawn from 0 to this (s); it doubles with each retry."""
MAX_BACKOFF_S = 8.0
"""Longest wait between two requests (s) that is of our own choice."""
MAX_WISH_S = 120.0
"""Longest wait (s) that a server may ask for; one that asks for more is not asked again."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What is tried again, and how often.

    Attributes:
        retries: requests after the first, 1 or more.
        statuses: HTTP statuses that are tried again.
        texts: lower-case texts that make any error answer be tried again.
        max_elapsed_s: after this time from the call's beginning (s) none is made again.
    """

    retries: int
    statuses: frozenset[int]
    texts: tuple[str, ...] = ()
    max_elapsed_s: float = inf


def wish_of(headers: Headers) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, or `Retry-After` as seconds or as a date (RFC 9110)."""
    milliseconds = number_in(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000.0
    text = headers.get("retry-after")
    seconds = number_in(text)
    if seconds is None and text:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return None if seconds is None else max(0.0, seconds)


def backoff_s(retry: int) -> float:
    """Seconds before the n-th retry (1 for the first) unless the server says: full jitter (Brooker 2015)."""
    return random.uniform(0.0, min(MAX_BACKOFF_S, BACKOFF_S * 2.0 ** min(retry - 1, 16)))


class RetryLayer:
    """Makes a call again that failed before its caller has seen anything of an answer.

    That includes the body of an answer that is no stream, and the first piece of one that is.

    Args:
        policy: what is tried again.
        budget: how much of that all calls of the server may do; `None` for any. A retry after a refusal for overload
            takes nothing out of it, for that waits for room (`layers.concurrency`).
        clock: seconds, never going back.
        held_back: whether calls are held back further down, where a retry waits until the server is back and is not
            sent before; such a one takes nothing out of the budget either.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        budget: RetryBudget | None = None,
        clock: Callable[[], float] = monotonic,
        held_back: Callable[[], bool] = bool,
    ) -> None:
        self._policy = policy
        self._budget = budget
        self._clock = clock
        self._held_back = held_back

    def flow(self, call: Call, send: Send) -> Flow:
        """Send until there is an answer that stands."""
        if self._budget is not None:
            self._budget.call()
        retry = 0
        while True:
            retry += 1
            last = retry > self._policy.retries
            try:
                reply: Reply = yield from send(call)
                if reply.status < 400:
                    if reply.content is None and not reply.head:  # else it was read further down
                        yield ReadBody(reply, 0 if reply.is_streamed else MAX_UNARY_BYTES)
                    return reply
                wait, why = (None, "") if last else (yield from self._judge(reply, retry))
                if wait is None:
                    return reply
                overload = classify(reply.status, None, why) is Kind.OVERLOAD
                if not self._may(call, wait, why, overload):
                    return reply
                yield Close(reply)
            except Failure as failure:
                if last or failure.kind not in KINDS:
                    raise
                wait, why = backoff_s(retry), f"{type(failure.original).__name__}: {failure}"
                if not self._may(call, wait, why):
                    raise
            logger.warning("%s: %s; retry %d of %d in %.1f s", call.origin, why, retry, self._policy.retries, wait)
            call.record.retry_wait_ms += wait * 1000.0
            yield Sleep(wait)

    def _may(self, call: Call, wait: float, why: str, overload: bool = False) -> bool:
        """Whether there is time, and something left in the budget, for one more request after this wait (s)."""
        if wait >= call.left_s or call.now_ms / 1000.0 + wait > self._policy.max_elapsed_s:
            logger.warning("%s: %s; no time is left to try again", call.origin, why)
            return False
        if self._budget is None or overload or self._held_back() or self._budget.take(self._clock()):
            return True
        logger.warning("%s: %s; not tried again, for the retry budget is used up", call.origin, why)
        return False

    def _judge(self, reply: Reply, retry: int) -> Generator[Operation, Any, tuple[float | None, str]]:
        """How long to wait before the next request (s), or `None` if this error answer stands; and why."""
        asked = reply.headers.get("x-should-retry")
        retried = reply.status in self._policy.statuses or asked == "true"
        body = b""
        if retried or self._policy.texts or reply.status == 404:
            body = yield ReadBody(reply, MAX_ERROR_BYTES)
        text = error_text(body)
        if not retried:
            retried = any(wanted in text.lower() for wanted in self._policy.texts) or is_not_ready(reply, body)
        wish = wish_of(reply.headers)
        if not retried or asked == "false" or (wish or 0.0) > MAX_WISH_S:
            return None, ""
        return max(wish or 0.0, backoff_s(retry) if wish is None else 0.0), f"{reply.status} {text}".strip()


def is_not_ready(reply: Reply, body: bytes) -> bool:
    """Whether this is Dynamo 1.6.0 before it knows the model: 404 with an empty body."""
    return reply.status == 404 and not body
