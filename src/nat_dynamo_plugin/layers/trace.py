"""Traces: every call has a place in one, says it to the server, and has a request id for each attempt."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import Flow, Send
from nat_dynamo_plugin.layers.content import Content
from nat_dynamo_plugin.telemetry import names
from nat_dynamo_plugin.telemetry.record import CallRecord
from nat_dynamo_plugin.telemetry.trace_context import TraceParent, current_parent, new_request_id, new_span_id, parsed

if TYPE_CHECKING:
    from nat_dynamo_plugin.telemetry.spans import Spans

PARENT, STATE, REQUEST_ID = b"traceparent", b"tracestate", b"x-request-id"


class TraceLayer:
    """Gives each call a span, or only its ids where nobody records any.

    Stands above all other layers, and `RequestIdLayer` below all that may send a call again.

    Args:
        spans: where spans are recorded; `None` where OpenTelemetry is not installed.
        return_request_id: whether the caller gets the last attempt's id as `x-request-id`, in place of the server's.
        content: whether spans hold prompt and answer.
    """

    def __init__(self, spans: Spans | None, *, return_request_id: bool = False, content: bool = False) -> None:
        self._spans = spans
        self._return_request_id = return_request_id
        self._content = content

    def flow(self, call: Call, send: Send) -> Flow:
        """Begin the span, and send."""
        content = Content(call) if self._content else None
        self._begin(call, content)
        if (given := call.headers.get(REQUEST_ID)) is not None:
            call.record.request_ids = (given,)
        if content is None and not self._return_request_id:
            return send(call)
        return self._with_reply(call, send, content)

    def _with_reply(self, call: Call, send: Send, content: Content | None) -> Flow:
        reply: Reply = yield from send(call)
        if content is not None:
            content.watch(call, reply)
        if self._return_request_id and call.record.request_ids:
            reply.headers.set(REQUEST_ID, call.record.request_ids[-1])
        return reply

    def _begin(self, call: Call, content: Content | None) -> None:
        headers, record = call.headers, call.record
        own = parsed(headers.get(PARENT), headers.get(STATE)) if PARENT in headers.names else None
        parent = own or current_parent()
        started = None
        if self._spans is not None:
            started = self._spans.start(names.OPERATIONS.get(call.api, "chat"), parent)
        if started is not None:
            place = started.place
            call.on_end(partial(self._ended, started.span, content))
        elif own is not None:
            place = own
        elif parent is not None:
            place = TraceParent(parent.trace_id, new_span_id(), parent.sampled, parent.state)
        else:
            return  # no trace to be part of, and nobody to begin one
        record.trace_id, record.span_id = f"{place.trace_id:032x}", f"{place.span_id:016x}"
        if PARENT not in headers.names:  # the caller's own wins, right or wrong
            headers.put(PARENT, place.header)
            if place.state:
                headers.put(STATE, place.state.encode("latin-1", "ignore"))

    def _ended(self, span: Any, content: Content | None, record: CallRecord) -> None:
        assert self._spans is not None
        told = {}
        if content is not None:
            told = {names.INPUT_MESSAGES: content.prompt, names.OUTPUT_MESSAGES: content.answer}
        self._spans.end(span, record, {name: text for name, text in told.items() if text is not None})


class RequestIdLayer:
    """Gives each attempt an `x-request-id` of its own: a UUID or the caller's, later with -2, -3, ... behind."""

    def flow(self, call: Call, send: Send) -> Flow:
        """Name the attempt, and send."""
        record = call.record
        known = record.request_ids
        if not known:
            # There may be one of `headers.add` or of a layer of the user's, which stand below `TraceLayer`.
            record.request_ids = (call.headers.get(REQUEST_ID) or new_request_id(),)
        elif record.attempts:
            record.request_ids = (*known, f"{known[0]}-{len(known) + 1}")
        call.headers.put(REQUEST_ID, record.request_ids[-1].encode("latin-1"))
        return send(call)
