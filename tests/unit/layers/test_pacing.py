"""Requests are spread by what the answers say."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.http.call import Reply
from nat_dynamo_plugin.http.flow import Failure
from nat_dynamo_plugin.layers.pacing import PacingLayer


def said(status: int = 200, remaining: int = 0, reset: str = "30s", **more: str) -> Reply:
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": str(remaining),
        "x-ratelimit-reset-requests": reset,
    }
    return Reply.made(status, b"{}", {**headers, **{name.replace("_", "-"): value for name, value in more.items()}})


class Clock:
    """A second passes with each look."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_with_nothing_left_the_next_request_waits_for_the_reset(drive: Any, scripted: Any) -> None:
    clock = Clock()
    pacing, server = PacingLayer("http://server", clock), scripted(said(), said(remaining=59))
    drive(pacing, server)
    began, call = clock.now, drive.call()
    assert drive(pacing, server, call).status == 200
    assert clock.now - began >= 29 and call.record.limit_wait_ms > 0
    began = clock.now
    drive(pacing, server)
    assert clock.now - began < 5


def test_keys_are_paced_apart(drive: Any, scripted: Any) -> None:
    pacing, server = PacingLayer("http://server", Clock()), scripted(said())
    drive(pacing, server, drive.call(headers={"authorization": "Bearer a"}))
    drive(pacing, server, drive.call(headers={"authorization": "Bearer b"}))
    assert not drive.slept


def test_a_refusal_without_headers_makes_the_next_one_wait_as_long_as_it_says(drive: Any, scripted: Any) -> None:
    clock = Clock()
    refused = Reply.made(429, b"{}", {"retry-after": "20"})
    pacing, server = PacingLayer("http://server", clock), scripted(refused, Reply.made(200, b"{}"))
    drive(pacing, server)
    began = clock.now
    drive(pacing, server)
    assert clock.now - began >= 19


def test_a_server_that_says_nothing_is_not_paced(drive: Any, scripted: Any) -> None:
    pacing, server = PacingLayer("http://server", Clock()), scripted(Reply.made(200, b"{}"))
    for _ in range(50):
        drive(pacing, server)
    assert not drive.slept


def test_a_request_that_fails_leaves_the_way_free(drive: Any, scripted: Any) -> None:
    pacing = PacingLayer("http://server", Clock())
    with pytest.raises(Failure):
        drive(pacing, scripted(Failure("connect", httpx.ConnectError("no"))))
    assert drive(pacing, scripted(said(remaining=5))).status == 200 and not drive.slept
