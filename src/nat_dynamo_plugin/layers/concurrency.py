"""Each request of a call takes a slot here, so that a server's connections and queue are never fuller than they may be.

It stands below the gate, not above: a call that had a slot while its question waits at the gate could keep those from
going on whose place it waits for.
"""

from __future__ import annotations

from functools import partial

from nat_dynamo_plugin.admission.slots import Slot, Slots
from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.http.flow import Enter, Flow, Send
from nat_dynamo_plugin.layers.answer import refused
from nat_dynamo_plugin.telemetry.kinds import Kind, classify
from nat_dynamo_plugin.telemetry.record import CallRecord

OVERLOADED = 529
"""Status of a call for which there was no slot in time; Dynamo's own word for it."""


class ConcurrencyLayer:
    """Bounds the requests under way.

    Args:
        slots: shared by all that call this server.
    """

    def __init__(self, slots: Slots) -> None:
        self.slots = slots

    def flow(self, call: Call, send: Send) -> Flow:
        """Wait for a slot, if need be, then send."""
        record = call.record
        slot = self.slots.slot(record.started_at)
        if not slot.try_enter():
            try:
                yield Enter(slot)
            except TimeoutError as error:
                if call.left_s <= 0:
                    raise
                return refused(call, OVERLOADED, str(error), Kind.OVERLOAD.value)
            finally:
                record.slot_wait_ms += slot.waited_s * 1000.0
        try:
            reply = yield from send(call)
        except BaseException:
            slot.leave()
            raise
        if reply.status >= 400:
            slot.leave(refused=classify(reply.status, None, record.error or "") is Kind.OVERLOAD)
        elif reply.content is None or record.streamed:
            call.on_end(partial(_ended, slot))
        else:
            slot.leave(answered=True)
        return reply


def _ended(slot: Slot, record: CallRecord) -> None:
    slot.leave(answered=not record.failed)
