"""The outermost layer: begins the call's record, and hands it on when the call is over."""

from __future__ import annotations

from functools import partial

import msgspec

from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.http.flow import Flow, Send
from nat_dynamo_plugin.secrets import redacted
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
    """

    def __init__(
        self,
        model: str | None = None,
        origin: str | None = None,
        emit: Emit = emit_to_all,
    ) -> None:
        self._model = model
        self._origin = origin
        self._emit = emit

    def flow(self, call: Call, send: Send) -> Flow:
        """Send."""
        record = call.record
        record.request_model = self._model
        record.origin = self._origin or call.origin
        call.on_end(partial(self._ended, call.body.raw))
        return send(call)

    def _ended(self, body: bytes | None, record: CallRecord) -> None:
        if record.model is None and body is not None:
            # Nobody answered, so what was asked for is all there is; looked up here alone, for it takes a while.
            record.request_model = _model_in(body) or record.request_model
        if record.error is not None:
            record.error = redacted(record.error)
            record.error_type = None if record.error_type is None else redacted(record.error_type)
        self._emit(record)


def _model_in(body: bytes) -> str | None:
    try:
        return _asked.decode(body).model
    except msgspec.DecodeError:
        return None
