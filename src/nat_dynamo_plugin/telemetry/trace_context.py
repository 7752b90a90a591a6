"""W3C Trace Context: which trace a call belongs to, and how that is said in headers. Needs no OpenTelemetry.

Source: https://www.w3.org/TR/trace-context/, version 00.
"""

from __future__ import annotations

import random
import re
import sys
from time import time_ns
from typing import NamedTuple

from nat.builder.context import ContextState

_STATE = ContextState.get()
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceParent(NamedTuple):
    """Where in a trace something happens.

    Attributes:
        trace_id: 128 bits, not 0.
        span_id: 64 bits; 0 where the trace is known, but no span in it.
        sampled: whether its spans are recorded.
        state: `tracestate`, or nothing.
    """

    trace_id: int
    span_id: int
    sampled: bool
    state: str = ""

    @property
    def header(self) -> bytes:
        """`traceparent`."""
        return b"00-%032x-%016x-%02x" % (self.trace_id, self.span_id, self.sampled)


def parsed(traceparent: str | None, tracestate: str | None = None) -> TraceParent | None:
    """What headers say; `None` for what the specification calls invalid."""
    found = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    if not trace_id or not span_id:
        return None
    return TraceParent(trace_id, span_id, bool(int(found[4], 16) & 1), tracestate or "")


def current_parent() -> TraceParent | None:
    """What a call made now, from here, is part of: OpenTelemetry's current span, else NAT's workflow run.

    Of a run under `nat serve` whose client sent a `traceparent`, NAT keeps the trace's id alone; its span and flags are
    taken from the request. A trace that is only NAT's counts as sampled, for NAT's exporters leave nothing out.
    """
    trace = sys.modules.get("opentelemetry.trace")  # who has a span has loaded it
    if trace is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            state = context.trace_state.to_header() if context.trace_state else ""
            return TraceParent(context.trace_id, context.span_id, bool(context.trace_flags & 1), state)
    trace_id = _STATE.workflow_trace_id.get()
    if not trace_id:
        return None
    headers = _STATE.metadata.get().headers
    if headers is not None:
        incoming = parsed(headers.get("traceparent"), headers.get("tracestate"))
        if incoming is not None and incoming.trace_id == trace_id:
            return incoming
    return TraceParent(trace_id, 0, True)


def new_span_id() -> int:
    """64 random bits, not 0."""
    return random.getrandbits(64) or 1


def new_request_id() -> str:
    """A UUID of version 7 (RFC 9562): unique, and in the order of time to the millisecond."""
    at_random = random.getrandbits(74)
    upper = time_ns() // 1_000_000 << 16 | _VERSION | at_random >> 62
    text = f"{upper << 64 | _VARIANT | at_random & _LOWER:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_VERSION, _VARIANT, _LOWER = 7 << 12, 2 << 62, 2**62 - 1
