"""Each request takes a slot, and gives it back however it ends."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.admission.concurrency import ConcurrencyLimit
from nat_dynamo_plugin.admission.slots import Slots
from nat_dynamo_plugin.http.call import Reply
from nat_dynamo_plugin.http.flow import Failure
from nat_dynamo_plugin.layers.concurrency import ConcurrencyLayer

WELL = Reply.made(200, b"{}")


def layer(most: int = 4) -> ConcurrencyLayer:
    return ConcurrencyLayer(Slots(ConcurrencyLimit(most), "http://server"))


def test_the_slot_is_held_while_the_request_is_under_way(drive: Any, scripted: Any) -> None:
    one = layer()

    def look(_: Any) -> Reply:
        assert one.slots.under_way == 1
        return WELL

    assert drive(one, scripted(look)).status == 200
    assert one.slots.under_way == 0 and one.slots.last_answer > 0


def test_a_failure_gives_it_back(drive: Any, scripted: Any) -> None:
    one = layer()
    with pytest.raises(Failure):
        drive(one, scripted(Failure("connect", httpx.ConnectError("no"))))
    assert one.slots.under_way == 0 and one.slots.last_answer < 0


@pytest.mark.parametrize(("status", "refuses"), [(529, True), (429, True), (500, False), (400, False)])
def test_a_refusal_for_overload_lowers_the_limit(drive: Any, scripted: Any, status: int, refuses: bool) -> None:
    one = layer()
    assert drive(one, scripted(Reply.made(status, b"{}"))).status == status
    assert (one.slots.limit.limit == 1) is refuses and one.slots.under_way == 0


def test_a_503_that_says_so_is_one_too(drive: Any, scripted: Any) -> None:
    one, call = layer(), drive.call()
    call.record.error = "All workers are busy, please retry later"
    drive(one, scripted(Reply.made(503, b"{}")), call)
    assert one.slots.limit.limit == 1


def test_a_stream_keeps_it_to_its_end(drive: Any, scripted: Any) -> None:
    one, server, call = layer(), scripted(), drive.call()
    server.unread(200, b"data: 1", {"content-type": "text/event-stream"})
    drive(one, server, call)
    assert one.slots.under_way == 1
    call.finish()
    assert one.slots.under_way == 0


def test_without_a_slot_in_time_the_call_is_refused_here(drive: Any, scripted: Any) -> None:
    one, server, call = layer(1), scripted(WELL), drive.call()
    one.slots.slot(0).try_enter()
    times = iter([0.0, 0.0, 0.0, 301.0, 301.0, 301.0, 301.0])
    one.slots.clock = lambda: next(times)
    reply = drive(one, server, call)
    assert reply.status == 529 and not server.sent and call.record.error_type == "overload"
    assert call.record.slot_wait_ms > 0
