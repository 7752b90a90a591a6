"""The outermost layer: reads the answer into the call's record, and hands the record on when the call is over."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from nat_dynamo_plugin.http.answer_fields import ReadUsage
from nat_dynamo_plugin.http.answers import reader_for
from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.http.flow import Flow, Send
from nat_dynamo_plugin.telemetry.exporters import Emit
from nat_dynamo_plugin.telemetry.exporters import emit as emit_to_all
from nat_dynamo_plugin.telemetry.record import CallRecord


class _Asked(msgspec.Struct):
    model: str | None = None


_asked = msgspec.json.Decoder(_Asked)


class RecordLayer:
    """One `CallRecord` a call, whatever becomes of it.

    Args:
        model: the model that these calls ask for, unless they say otherwise.
        origin: where they go; `None` to look at each call.
        emit: where records go; the default hands them to every exporter of `telemetry.exporters`.
        read_usage: what reads the usage of servers that do not name it as OpenAI does.
    """

    def __init__(
        self,
        model: str | None = None,
        origin: str | None = None,
        emit: Emit = emit_to_all,
        read_usage: Sequence[ReadUsage] = (),
    ) -> None:
        self._model = model
        self._origin = origin
        self._emit = emit
        self._read_usage = tuple(read_usage)

    def flow(self, call: Call, send: Send) -> Flow:
        """Send, and have the answer read while it passes."""
        record = call.record
        record.request_model = self._model
        record.origin = self._origin or call.origin
        call.on_end(partial(self._ended, call.body.raw))
        reply = yield from send(call)
        record.status = reply.status
        call.reader = reader_for(record, reply.status, reply.raw_headers, read_usage=self._read_usage)
        return reply

    def _ended(self, body: bytes | None, record: CallRecord) -> None:
        if record.model is None and body is not None:
            # Nobody answered, so what was asked for is all there is; looked up here alone, for it takes a while.
            record.request_model = _model_in(body) or record.request_model
        self._emit(record)


def _model_in(body: bytes) -> str | None:
    try:
        return _asked.decode(body).model
    except msgspec.DecodeError:
        return None
