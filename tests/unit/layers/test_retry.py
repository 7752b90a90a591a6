"""The one retry layer: what is made again, how often, how long it waits; no answer is lost by looking at it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic
from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.config.retry import RetryConfig
from nat_dynamo_plugin.http.call import Reply
from nat_dynamo_plugin.http.flow import Failure
from nat_dynamo_plugin.http.headers import Headers
from nat_dynamo_plugin.layers.retry import (
    BACKOFF_S,
    MAX_BACKOFF_S,
    RetryLayer,
    RetryPolicy,
    backoff_s,
    wish_of,
)
from nat_dynamo_plugin.outages.budget import RetryBudget

USUAL: Any = ([429, 500, 502, 503, 504], ["Too Many Requests", "429"])


def layer(retries: int = 2, statuses: Any = USUAL[0], texts: Any = USUAL[1]) -> RetryLayer:
    config = RetryConfig(max_retries=retries, on_status=statuses, on_errors=texts)
    return RetryLayer(RetryPolicy(config.max_retries, config.statuses, config.texts))


def error(status: int, text: str = "cold", **headers: str) -> Reply:
    return Reply.made(status, text.encode(), {name.replace("_", "-"): value for name, value in headers.items()})


def broken(kind: str) -> Failure:
    return Failure(kind, httpx.ReadError("cut"))


WELL = Reply.made(200, b"well")


@pytest.mark.parametrize(("retries", "statuses"), [(2, [503]), (1, ["5xx"]), (3, [])])
def test_a_persistent_503_costs_what_the_policy_says(drive: Any, scripted: Any, retries: int, statuses: Any) -> None:
    server, call = scripted(error(503)), drive.call()
    reply = drive(layer(retries, statuses, None), server, call)
    assert (reply.status, reply.content) == (503, b"cold")
    assert len(server.sent) == retries + 1 == call.record.attempts == len(drive.slept) + 1
    assert call.record.retry_wait_ms == pytest.approx(1000 * sum(drive.slept))


@pytest.mark.parametrize("status", [408, 409, 429, 500, 529])
def test_overload_is_tried_again(drive: Any, scripted: Any, status: int) -> None:
    server = scripted(first := error(status), WELL)
    assert drive(layer(), server).content == b"well"
    assert len(server.sent) == 2 and server.closed == [first]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_mistake_of_the_callers_is_not(drive: Any, scripted: Any, status: int) -> None:
    server = scripted(error(status, "bad at line 1 column 429"))
    assert drive(layer(), server).content == b"bad at line 1 column 429"
    assert len(server.sent) == 1 and not drive.slept


def test_a_dynamo_that_does_not_know_its_model_yet_is_asked_again(drive: Any, scripted: Any) -> None:
    server = scripted(error(404, ""), error(404, ""), WELL)
    assert drive(layer(), server).content == b"well"


def test_an_error_with_a_listed_text_is_tried_again(drive: Any, scripted: Any) -> None:
    server = scripted(error(418, "no steam pressure yet"), WELL)
    assert drive(layer(2, [503], ["Steam Pressure"]), server).content == b"well"
    server = scripted(error(418, "no steam pressure yet"))
    assert drive(layer(2, [503], ["Steam Pressure"]), server).content == b"no steam pressure yet"
    assert len(server.sent) == 3


def test_a_status_among_the_texts_means_the_status(drive: Any, scripted: Any) -> None:
    assert drive(layer(2, [503], ["418"]), scripted(error(418, "teapot"), WELL)).content == b"well"


@pytest.mark.parametrize("kind", ["connect", "connect timeout", "pool timeout", "read", "write", "protocol"])
def test_a_broken_connection_is_tried_again(drive: Any, scripted: Any, kind: str) -> None:
    server = scripted(broken(kind), WELL)
    assert drive(layer(), server).content == b"well" and len(drive.slept) == 1


@pytest.mark.parametrize("kind", ["read timeout", "write timeout", "local"])
def test_what_may_still_be_answered_or_never_goes_out_is_not(drive: Any, scripted: Any, kind: str) -> None:
    server = scripted(broken(kind))
    with pytest.raises(Failure):
        drive(layer(), server)
    assert len(server.sent) == 1


def test_the_last_failure_is_the_callers(drive: Any, scripted: Any) -> None:
    server = scripted(broken("connect"))
    with pytest.raises(Failure):
        drive(layer(4), server)
    assert len(server.sent) == 5


@pytest.mark.parametrize("status", [200, 503])
def test_a_body_that_breaks_is_tried_again(drive: Any, scripted: Any, status: int) -> None:
    server = scripted()
    server.unread(status, broken("protocol"))
    server.unread(200, b"well")
    assert drive(layer(), server).content == b"well" and len(server.sent) == 2


def test_a_stream_that_breaks_before_its_first_piece_is_tried_again(drive: Any, scripted: Any) -> None:
    server = scripted()
    server.unread(200, broken("read"), {"content-type": "text/event-stream"})
    server.unread(200, b"data: 1", {"content-type": "text/event-stream"})
    assert drive(layer(), server).status == 200 and len(server.sent) == 2


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({"retry_after": "60"}, 60.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after_ms": "250", "retry_after": "9"}, 0.25),
        ({"retry_after": "0"}, 0.0),
    ],
)
def test_the_server_says_how_long_to_wait(drive: Any, scripted: Any, headers: dict[str, str], waits: float) -> None:
    assert drive(layer(), scripted(error(503, **headers), WELL)).content == b"well"
    assert drive.slept == [waits]


def test_a_server_that_asks_for_longer_than_anybody_waits_is_not_asked_again(drive: Any, scripted: Any) -> None:
    server = scripted(error(503, retry_after="3600"))
    assert drive(layer(), server).status == 503 and len(server.sent) == 1


def test_the_server_says_whether_to_retry(drive: Any, scripted: Any) -> None:
    assert drive(layer(), scripted(error(503, x_should_retry="false"), WELL)).status == 503
    assert drive(layer(), scripted(error(400, x_should_retry="true"), WELL)).status == 200


def test_each_retry_is_a_line_in_the_log(drive: Any, scripted: Any, caplog: pytest.LogCaptureFixture) -> None:
    drive(layer(), scripted(error(503, '{"error": {"message": "boiler"}}', retry_after="2"), broken("connect"), WELL))
    assert [record.getMessage() for record in caplog.records][:1] == [
        "http://127.0.0.1:8000: 503 boiler; retry 1 of 2 in 2.0 s"
    ]
    assert "ReadError: cut; retry 2 of 2 in" in caplog.records[1].getMessage()


def test_waits_are_drawn_from_ever_wider_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nat_dynamo_plugin.layers.retry.random.uniform", lambda low, high: (low, high))
    assert backoff_s(1) == (0.0, BACKOFF_S) and backoff_s(3) == (0.0, 4 * BACKOFF_S)
    assert backoff_s(1000) == (0.0, MAX_BACKOFF_S)


def test_the_date_to_wait_for() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    wish = wish_of(Headers([(b"retry-after", later.encode())]))
    assert wish is not None and 0 < wish <= 3600
    past = format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)
    assert wish_of(Headers([(b"retry-after", past.encode())])) == 0.0


@pytest.mark.parametrize("value", ["", "soon", "-3", "nan", "inf", "1e999"])
def test_a_wish_that_is_none(value: str) -> None:
    assert wish_of(Headers([(b"retry-after", value.encode())])) is None


def test_a_budget_that_is_used_up_ends_the_retries(drive: Any, scripted: Any) -> None:
    budget = RetryBudget(0.2, 0.0)
    while budget.take(0.0):
        pass
    policy = RetryPolicy(5, frozenset({503, 529}))
    server = scripted(error(503))
    assert drive(RetryLayer(policy, budget, lambda: 0.0), server).status == 503 and len(server.sent) == 1
    server = scripted(broken("connect"))
    with pytest.raises(Failure):
        drive(RetryLayer(policy, budget, lambda: 0.0), server)
    assert len(server.sent) == 1


def test_a_refusal_for_overload_takes_nothing_out_of_it(drive: Any, scripted: Any) -> None:
    budget = RetryBudget(0.2, 0.0)
    while budget.take(0.0):
        pass
    one = RetryLayer(RetryPolicy(5, frozenset({503, 529})), budget, lambda: 0.0)
    assert drive(one, scripted(error(529), error(529), WELL)).content == b"well"


def test_each_call_adds_to_the_budget(drive: Any, scripted: Any) -> None:
    budget = RetryBudget(0.5, 0.0)
    while budget.take(0.0):
        pass
    one = RetryLayer(RetryPolicy(5, frozenset({503})), budget, lambda: 0.0)
    for _ in range(4):
        drive(one, scripted(WELL))
    server = scripted(error(503))
    drive(one, server)
    assert len(server.sent) == 1 + 2


def test_nothing_is_tried_again_that_can_not_end_in_time(drive: Any, scripted: Any) -> None:
    server, call = scripted(error(503, retry_after="60")), drive.call()
    call.deadline = monotonic() + 30
    assert drive(layer(), server, call).status == 503 and len(server.sent) == 1
    server = scripted(error(503, retry_after="20"))
    one = RetryLayer(RetryPolicy(5, frozenset({503}), max_elapsed_s=10.0))
    assert drive(one, server).status == 503 and len(server.sent) == 1


def test_a_retry_that_is_held_back_takes_nothing_out_of_the_budget(drive: Any, scripted: Any) -> None:
    budget = RetryBudget(0.001, 0.0)
    while budget.take(0.0):
        pass
    policy = RetryPolicy(2, frozenset({503}))
    clock = float  # always 0
    assert drive(RetryLayer(policy, budget, clock), scripted(error(503), WELL)).status == 503
    assert drive(RetryLayer(policy, budget, clock, held_back=lambda: True), scripted(error(503), WELL)).status == 200
