"""Redirects that keep method and body are followed; no other origin gets the key."""

from __future__ import annotations

from typing import Any

import pytest

from nat_dynamo_plugin.http.call import Reply
from nat_dynamo_plugin.layers.redirect import MAX_REDIRECTS, RedirectLayer

KEY = {"Authorization": "Bearer k", "host": "127.0.0.1:8000"}


def to(location: str, status: int = 307) -> Reply:
    return Reply.made(status, b"", {"location": location})


@pytest.mark.parametrize("status", [307, 308])
def test_within_a_server(drive: Any, scripted: Any, status: int) -> None:
    server = scripted(to("/v2/chat/completions", status), Reply.made(200, b"well"))
    assert drive(RedirectLayer(), server, drive.call(KEY)).content == b"well"
    assert [sent["url"] for sent in server.sent][1] == "http://127.0.0.1:8000/v2/chat/completions"
    assert server.sent[1]["headers"] == KEY and server.sent[1]["body"] == b'{"a":1}' and len(server.closed) == 1


@pytest.mark.parametrize("location", ["http://127.0.0.1:9000/v1", "https://127.0.0.1:8000/v1", "//other/v1"])
def test_another_origin_gets_no_key(drive: Any, scripted: Any, location: str) -> None:
    server = scripted(to(location), Reply.made(200, b"well"))
    assert drive(RedirectLayer(), server, drive.call(KEY)).content == b"well"
    headers = server.sent[1]["headers"]
    assert "Authorization" not in headers and headers["host"] in ("127.0.0.1:9000", "127.0.0.1:8000", "other")


@pytest.mark.parametrize("reply", [to("/x", 301), to("/x", 303)])
def test_what_would_turn_the_call_into_another_stands(drive: Any, scripted: Any, reply: Reply) -> None:
    server = scripted(reply)
    assert drive(RedirectLayer(), server) is reply and len(server.sent) == 1


@pytest.mark.parametrize(
    ("reply", "words", "requests"),
    [
        (Reply.made(307, b""), "nowhere", 1),
        (to("file:///etc/passwd"), "file:///etc/passwd", 1),
        (to("/again"), "/again", MAX_REDIRECTS + 1),
    ],
)
def test_what_is_not_followed_is_an_error(drive: Any, scripted: Any, reply: Reply, words: str, requests: int) -> None:
    server, call = scripted(reply), drive.call()
    answer = drive(RedirectLayer(), server, call)
    assert answer.status == 502 and words.encode() in answer.content and len(server.sent) == requests
    assert words in call.record.error and len(server.closed) == requests
