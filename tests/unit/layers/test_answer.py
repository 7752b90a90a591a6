"""What passes for an answer, and what errors look like."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from nat_dynamo_plugin.http.call import Reply
from nat_dynamo_plugin.layers.answer import MAX_ERROR_BYTES, NO_ANSWER, AnswerLayer

FLAT = {"message": "no such model", "type": "Not Found", "code": 404}
GOOD = {"choices": [{"finish_reason": "stop", "message": {"content": "Yes."}}]}


@pytest.mark.parametrize(
    ("status", "sent", "expected"),
    [
        (404, FLAT, {"error": FLAT}),
        (404, {"error": FLAT}, {"error": FLAT}),
        (404, {"detail": "x"}, {"detail": "x"}),
        (404, ["message"], ["message"]),
        (200, GOOD, GOOD),
    ],
)
def test_a_flat_error_is_put_under_error(drive: Any, scripted: Any, status: int, sent: Any, expected: Any) -> None:
    reply = drive(AnswerLayer(), scripted(Reply.made(status, json.dumps(sent).encode(), {"x-request-id": "7"})))
    assert (reply.status, json.loads(reply.content)) == (status, expected)
    assert reply.headers.get("x-request-id") == "7"
    assert reply.headers.get("content-length") == str(len(reply.content))


@pytest.mark.parametrize(
    ("content", "kind"), [(json.dumps(FLAT).encode()[:-3], "application/json"), (b"<p>", "text/html")]
)
def test_an_error_that_is_no_json_passes_unchanged(drive: Any, scripted: Any, content: bytes, kind: str) -> None:
    call = drive.call()
    reply = drive(AnswerLayer(), scripted(Reply.made(500, content, {"content-type": kind})), call)
    assert reply.content == content and (call.record.status, call.record.error_type) == (500, "500")


@pytest.mark.parametrize(
    ("content", "words", "kind"),
    [
        (b'{"error": {"message": "the boiler is cold"}}', "the boiler is cold", "error_in_answer"),
        (b"<html>busy</html>", "no JSON object", "unreadable"),
        (b"", "empty", "unreadable"),
        (b"null", "no JSON object", "unreadable"),
        (b"[]", "no JSON object", "unreadable"),
        (b'{"choices": []}', "no choices", "unreadable"),
        (b'{"choices": [{"message": {"content": "Ye"}}]}', "no finish_reason", "cut_short"),
        (b'{"choices": [{"finish_reason": "error"}]}', 'finish_reason "error"', "error_in_answer"),
    ],
)
def test_a_200_that_is_no_answer_is_an_error(drive: Any, scripted: Any, content: bytes, words: str, kind: str) -> None:
    call = drive.call()
    reply = drive(AnswerLayer(), scripted(Reply.made(200, content)), call)
    error = json.loads(reply.content)["error"]
    assert reply.status == NO_ANSWER == error["code"] and words in error["message"] and error["type"] == kind
    assert (call.record.status, call.record.error_type) == (200, kind) and words in call.record.error


def test_a_long_error_is_cut(drive: Any, scripted: Any) -> None:
    reply = drive(AnswerLayer(), scripted(Reply.made(400, b"x" * 10 * MAX_ERROR_BYTES)))
    assert len(reply.content) < 1000 and json.loads(reply.content)["error"]["message"].startswith("xxx")


def test_a_key_that_the_server_repeats_is_masked(drive: Any, scripted: Any) -> None:
    call = drive.call({"Authorization": "Bearer sk-secret-1234"})
    reply = drive(AnswerLayer(), scripted(Reply.made(401, b'{"error": "bad key sk-secret-1234"}')), call)
    assert b"sk-secret" not in reply.content and b"bad key ***" in reply.content
    assert "sk-secret" not in call.record.error


def test_what_an_attempt_before_said_is_forgotten(drive: Any, scripted: Any) -> None:
    layer, call = AnswerLayer(), drive.call()
    drive(layer, scripted(Reply.made(503, b"cold")), call)
    assert call.record.error == "cold"
    drive(layer, scripted(Reply.made(200, json.dumps(GOOD).encode())), call)
    assert (call.record.error, call.record.error_type, call.record.finish_reason) == (None, None, "stop")


@pytest.mark.parametrize(("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", bytes)])
def test_a_key_in_a_compressed_error(drive: Any, scripted: Any, encoding: str, encode: Any) -> None:
    call = drive.call({"authorization": "Bearer sk-canary-of-gzip"})
    sent = json.dumps({"error": {"message": "no key sk-canary-of-gzip", "type": None}}).encode()
    server = scripted(Reply.made(401, encode(sent), {"content-encoding": encoding}))
    reply = drive(AnswerLayer(), server, call)
    assert json.loads(reply.content)["error"]["message"] == "no key ***"
    assert "content-encoding" not in reply.headers and "canary" not in str(call.record)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b broken", b"plain"])
def test_an_error_whose_encoding_is_broken_stands(drive: Any, scripted: Any, content: bytes) -> None:
    reply = drive(AnswerLayer(), scripted(Reply.made(500, content, {"content-encoding": "gzip"})))
    assert reply.status == 500 and reply.content == content


def test_of_a_compressed_error_no_more_than_the_bound_is_unpacked(drive: Any, scripted: Any) -> None:
    bomb = gzip.compress(b"x" * (64 * MAX_ERROR_BYTES))
    reply = drive(AnswerLayer(), scripted(Reply.made(500, bomb, {"content-encoding": "gzip"})))
    assert len(reply.content) <= 2 * MAX_ERROR_BYTES
