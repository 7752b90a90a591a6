"""A server that refuses our body fields: the call goes through, and the server is remembered, for a while."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import Failure
from nat_dynamo_plugin.layers.refusal import REMEMBERED_S, RefusalLayer


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def hinted(drive: Any) -> Call:
    call: Call = drive.call()
    call.body.parts = (b'{"nvext":{},"a":1}',)
    call.record.hints = {"osl": 3}
    return call


def refusing(status: int) -> Any:
    return lambda call: Reply.made(200 if call.body.parts is None else status, b'{"message": "expected i32"}')


@pytest.mark.parametrize("status", [400, 422])
def test_the_call_goes_through_and_the_server_is_remembered(
    drive: Any, scripted: Any, clock: Clock, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    layer, server = RefusalLayer(clock), scripted(refusing(status))
    for _ in range(3):
        call = hinted(drive)
        assert drive(layer, server, call).status == 200
        assert call.record.hints == {}
    assert [sent["body"] for sent in server.sent] == [b'{"nvext":{},"a":1}', *[b'{"a":1}'] * 3]
    assert len(server.closed) == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert "http://127.0.0.1:8000 refuses what we put into bodies (expected i32); for 10 minutes" in line


def test_not_for_ever(drive: Any, scripted: Any, clock: Clock) -> None:
    layer, server = RefusalLayer(clock), scripted(refusing(400))
    drive(layer, server, hinted(drive))
    clock.now += REMEMBERED_S + 1
    drive(layer, server, hinted(drive))
    assert [b"nvext" in sent["body"] for sent in server.sent] == [True, False, True, False]


def test_only_that_server(drive: Any, scripted: Any, clock: Clock) -> None:
    layer = RefusalLayer(clock)
    drive(layer, scripted(refusing(400)), hinted(drive))
    assert layer.refuses("http://127.0.0.1:8000") and not layer.refuses("http://127.0.0.1:8001")


def test_a_mistake_of_the_callers_turns_nothing_off_and_he_gets_the_answer_to_his_own_body(
    drive: Any, scripted: Any, clock: Clock
) -> None:
    layer = RefusalLayer(clock)
    server = scripted(Reply.made(400, b"about nvext"), Reply.made(400, b"max_tokens is too large"))
    assert drive(layer, server, hinted(drive)).content == b"max_tokens is too large"
    assert not layer.refuses("http://127.0.0.1:8000")


def test_the_first_answer_stands_if_the_second_does_not_come(drive: Any, scripted: Any, clock: Clock) -> None:
    call = hinted(drive)
    server = scripted(Reply.made(400, b"first"), Failure("connect", httpx.ConnectError("gone")))
    assert drive(RefusalLayer(clock), server, call).content == b"first"
    assert call.record.hints == {"osl": 3}


@pytest.mark.parametrize("status", [200, 401, 404, 429, 500])
def test_other_answers_pass(drive: Any, scripted: Any, clock: Clock, status: int) -> None:
    server = scripted(Reply.made(status, b""))
    assert drive(RefusalLayer(clock), server, hinted(drive)).status == status and len(server.sent) == 1


def test_a_body_without_our_fields_is_sent_once(drive: Any, scripted: Any, clock: Clock) -> None:
    server = scripted(Reply.made(400, b""))
    assert drive(RefusalLayer(clock), server).status == 400 and len(server.sent) == 1
