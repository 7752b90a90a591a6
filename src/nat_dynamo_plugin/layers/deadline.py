"""A call that takes too long, whatever it is that takes its time, ends."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from time import monotonic, sleep
from typing import Any

import anyio

from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.http.flow import IO, AsyncIO, Close, Enter, Flow, Operation, Send, Sleep, too_late
from nat_dynamo_plugin.question.endings import on_question_end

MAX_QUESTIONS = 100_000
"""Questions whose beginning is remembered; beyond that those are forgotten that began first."""


class DeadlineLayer:
    """Bounds all that a call waits for: gate, server, retries, and the last byte of its answer.

    A blocking call in a transport without `hurry` (httpx's) that gets no byte any more ends at its read timeout, of
    which no more is left at the time of sending than of the call.

    Args:
        call_s: longest time of a call, in seconds; `None` for no limit.
        question_s: longest time from a question's first call to the end of its last one, in seconds. What is left of
            it is what a call gets.
        clock: seconds, never going back.
    """

    def __init__(
        self, call_s: float | None, question_s: float | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self._call_s = inf if call_s is None else call_s
        self._question_s = question_s
        self._clock = clock
        self._began: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()
        if question_s is not None:
            on_question_end(self)

    def question_ended(self, prefix_id: str) -> None:
        """Forget when the question began."""
        with self._lock:
            self._began.pop(prefix_id, None)

    def flow(self, call: Call, send: Send) -> Flow:
        """Send, and have everything that is waited for end in time."""
        now = self._clock()
        until = now + self._call_s
        if call.deadline is not None:  # of a layer like this one, further out
            until = min(until, call.deadline)
        if self._question_s is not None and call.turn is not None:
            until = min(until, self._began_at(call.turn.identity.prefix_id, now) + self._question_s)
        if until == inf:
            return (yield from send(call))
        call.deadline = until
        flow = send(call)
        try:
            operation = next(flow)
            while True:
                try:
                    # One further in has bounded it already, by a time that is no later.
                    result = yield operation if isinstance(operation, InTime) else InTime(operation, call)
                except BaseException as error:
                    operation = flow.throw(error)
                else:
                    operation = flow.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def _began_at(self, prefix_id: str, now: float) -> float:
        with self._lock:
            if len(self._began) >= MAX_QUESTIONS:
                self._began.popitem(last=False)
            return self._began.setdefault(prefix_id, now)


class InTime:
    """Another operation, until the call's deadline.

    Raises:
        Failure: at the deadline. A blocking one heeds it by itself where it can: a request by its timeouts, a body by
            its pieces, a place in a queue by `give_up_at`.
    """

    __slots__ = ("_call", "_operation")

    def __init__(self, operation: Operation, call: Call) -> None:
        self._operation = operation
        self._call = call

    def run(self, io: IO) -> Any:
        """Do it, blocking."""
        call, operation = self._call, self._operation
        if isinstance(operation, Close):  # nobody waits for it, and it must be done
            return operation.run(io)
        left = call.left_s
        if left <= 0:
            raise too_late(call)
        if isinstance(operation, Sleep) and operation.seconds > left:
            sleep(left)
            raise too_late(call)
        if isinstance(operation, Enter) and hasattr(operation.manager, "give_up_at"):
            operation.manager.give_up_at = call.deadline
            try:
                return operation.run(io)
            except TimeoutError:
                raise too_late(call) from None
        return operation.run(io)

    async def run_async(self, io: AsyncIO) -> Any:
        """Do it, awaiting."""
        call, operation = self._call, self._operation
        if isinstance(operation, Close):
            return await operation.run_async(io)
        left = call.left_s
        if left > 0:  # nothing is cancelled that does not wait
            with anyio.move_on_after(left):
                return await operation.run_async(io)
        raise too_late(call)
