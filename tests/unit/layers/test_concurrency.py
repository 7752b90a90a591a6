"""Each request takes a slot, and gives it back however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from nat_dynamo_plugin import DynamoModelConfig, DynamoTransport, make_service
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


@pytest.mark.parametrize("engine", ["sync", "async"])
def test_a_stream_that_breaks_before_its_first_event_gives_it_back_before_the_call_is_made_again(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nat_dynamo_plugin.layers.retry.backoff_s", lambda retry: 0.0)
    monkeypatch.setattr("nat_dynamo_plugin.admission.slots.STALLED_S", 5.0)  # or this would fail after five minutes
    broken, records = [True], []

    class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            if broken.pop():
                broken.append(False)
                raise httpx.ReadError("reset")
            yield b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in self:
                yield piece

    def serve(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Body())

    config = DynamoModelConfig(base_url="http://only-one/v1", model_name="m", api_key=None, max_concurrency=1)
    transport = DynamoTransport(httpx.MockTransport(serve), make_service(config, emit_record=records.append))
    url, body = "http://only-one/v1/chat/completions", {"model": "m", "messages": [], "stream": True}

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.post(url, json=body)

    if engine == "sync":
        with httpx.Client(transport=transport) as client:
            response = client.post(url, json=body)
    else:
        response = asyncio.run(ask())
    assert response.status_code == 200 and b"[DONE]" in response.content
    assert (records[0].attempts, records[0].error) == (2, None)
