"""Error answers in OpenAI's shape."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nat_dynamo_plugin.http.call import Reply
from nat_dynamo_plugin.layers.openai_errors import OpenAIErrorsLayer

FLAT = {"message": "no such model", "type": "Not Found", "code": 404}


@pytest.mark.parametrize(
    ("status", "sent", "expected"),
    [
        (404, FLAT, {"error": FLAT}),
        (404, {"error": FLAT}, {"error": FLAT}),
        (404, {"detail": "x"}, {"detail": "x"}),
        (404, ["message"], ["message"]),
        (200, FLAT, FLAT),
    ],
)
def test_a_flat_error_is_put_under_error(drive: Any, scripted: Any, status: int, sent: Any, expected: Any) -> None:
    reply = drive(OpenAIErrorsLayer(), scripted(Reply.made(status, json.dumps(sent).encode(), {"x-request-id": "7"})))
    assert (reply.status, json.loads(reply.content)) == (status, expected)
    assert reply.headers.get("x-request-id") == "7"
    assert reply.headers.get("content-length") == str(len(reply.content))


@pytest.mark.parametrize(
    ("content", "kind"), [(json.dumps(FLAT).encode()[:-3], "application/json"), (b"<p>", "text/html")]
)
def test_an_error_that_is_no_json_passes_unchanged(drive: Any, scripted: Any, content: bytes, kind: str) -> None:
    assert drive(OpenAIErrorsLayer(), scripted(Reply.made(502, content, {"content-type": kind}))).content == content
