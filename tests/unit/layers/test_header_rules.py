"""What header rules add to calls and answers, and what they take out of answers."""

from __future__ import annotations

from typing import Any

import pytest

from nat_dynamo_plugin.http.banned import Banned
from nat_dynamo_plugin.http.call import Reply
from nat_dynamo_plugin.layers.header_rules import HeaderRulesLayer


def fails() -> str:
    raise OSError("no such team")


def test_headers_are_added_beside_the_callers_own(drive: Any, scripted: Any) -> None:
    counted = iter(["one", None])
    layer = HeaderRulesLayer({"x-team": "a", "X-Turn": lambda: next(counted), "x-own": "ours"})
    server = scripted(Reply.made(200, b"{}"))
    for _ in range(2):
        drive(layer, server, drive.call({"X-Own": "callers"}))
    assert server.sent[0]["headers"] == {"X-Own": "callers", "x-team": "a", "X-Turn": "one"}
    assert server.sent[1]["headers"] == {"X-Own": "callers", "x-team": "a"}


@pytest.mark.parametrize("value", [fails, lambda: "a\r\nx-evil: 1", lambda: "\N{SNOWMAN}", lambda: 7])
def test_a_callable_that_fails_costs_its_header_and_not_the_call(drive: Any, scripted: Any, value: Any) -> None:
    server = scripted(Reply.made(200, b"{}"))
    assert drive(HeaderRulesLayer({"x-team": value}), server).status == 200
    assert server.sent[0]["headers"] == {}


def test_of_an_answer(drive: Any, scripted: Any) -> None:
    server = scripted(Reply.made(200, b"{}", {"Server": "x", "x-dynamo-a": "1", "x-keep": "k"}))
    layer = HeaderRulesLayer(None, {"x-served-by": "us", "x-keep": "ours"}, Banned(["server", "X-Dynamo-*"]))
    headers = dict(drive(layer, server).headers)
    assert headers.items() >= {"x-served-by": "us", "x-keep": "k", "content-type": "application/json"}.items()
    assert not {"Server", "x-dynamo-a"} & headers.keys() and server.sent[0]["headers"] == {}


def test_patterns_are_names_and_nothing_else() -> None:
    banned = Banned(["x-a", "x-s-*"])
    raw = [(b"X-A", b"1"), (b"x-ab", b"2"), (b"X-S-Lang", b"3"), (b"x-s", b"4"), (b"x-a", b"5")]
    assert banned.without(raw) == [(b"x-ab", b"2"), (b"x-s", b"4")]
