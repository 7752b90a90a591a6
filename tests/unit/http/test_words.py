"""What a caller reads of a failed call."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.headers import Headers
from nat_dynamo_plugin.http.words import about, let_openai_tell, says_about, tell, told


def call(**record: Any) -> Call:
    made = Call(
        SimpleNamespace(method="POST", url="http://user:pass@host:8000/v1"), "chat_completions", Headers([]), b""
    )
    for name, value in {"status": 503, "error": "cold", "request_model": "boiler", **record}.items():
        setattr(made.record, name, value)
    return made


def message(reply: Reply) -> str:
    return str(json.loads(reply.content or b"")["error"]["message"])


def test_it_says_who_was_asked_for_what_how_often_and_what_to_do() -> None:
    words = about(call(prefix_id="q1", worker_id=7, attempts=3, status=401))
    assert words.startswith("[http://host:8000, model boiler, prefix q1, worker 7, 3 attempts in 0.")
    assert words.endswith("s: authentication; check api_key]") and "pass" not in words


def test_what_it_says_is_recognised() -> None:
    assert says_about(f"Connection error. {about(call())}")
    assert says_about(about(call(prefix_id="q1", worker_id=7, attempts=12)))
    assert not says_about("[1, 2] attempts in 3 s") and not says_about("")


def test_one_attempt_is_one() -> None:
    assert ", 1 attempt in" in about(call(attempts=1))


@pytest.mark.parametrize(
    ("content", "begins"),
    [
        (b'{"error": {"message": "cold", "code": 7}}', "cold [http"),
        (b'{"message": "cold", "code": 7}', "cold [http"),
        (b'{"error": "cold"}', "cold [http"),
        (b'"cold"', "cold [http"),
        (b"cold", "cold [http"),
        (b"<html>cold</html>", "<html>cold</html> [http"),
        (b"", "[http"),
        (b"\xff\xfe", "\ufffd\ufffd [http"),
    ],
)
def test_the_servers_words_come_first_whatever_they_stand_in(content: bytes, begins: str) -> None:
    reply = told(call(), Reply.made(503, content, {"retry-after": "3", "x-request-id": "r1"}))
    assert message(reply).startswith(begins)
    assert (reply.status, reply.headers.get("retry-after"), reply.headers.get("x-request-id")) == (503, "3", "r1")
    assert reply.headers.get("content-length") == str(len(reply.content or b""))


def test_what_else_an_error_says_is_kept() -> None:
    reply = told(call(), Reply.made(400, b'{"error": {"message": "no", "param": "n", "code": "bad"}, "id": 1}'))
    body = json.loads(reply.content or b"")
    assert (body["id"], body["error"]["param"], body["error"]["code"]) == (1, "n", "bad")


@pytest.mark.parametrize("content", [b"[1]", b"7", b'{"error": [1]}', b'{"error": {"message": 7}}'])
def test_what_has_no_message_is_told_as_it_is(content: bytes) -> None:
    made = told(call(), Reply(500, [(b"content-type", b"application/json; charset=utf-16")], content))
    assert json.loads(made.content or b"")["error"]["message"].startswith(content.decode())
    assert made.headers.get("content-type") == "application/json"


def test_a_compressed_error_is_passed_on() -> None:
    reply = Reply.made(400, b"\x1f\x8b", {"content-encoding": "gzip"})
    assert told(call(), reply) is reply


def test_a_header_that_is_no_ascii_stays_as_it_is() -> None:
    reply = Reply(503, [(b"x-word", "ä".encode("latin-1"))], b"cold")
    assert told(call(), reply).raw_headers[0] == (b"x-word", b"\xe4")


def test_a_long_page_is_cut() -> None:
    assert len(message(told(call(), Reply.made(502, b"x" * 100_000)))) < 5000


@given(st.binary())
def test_no_content_makes_it_fail(content: bytes) -> None:
    reply = Reply.made(500, content)
    assert told(call(), reply).status == 500


def test_openais_connection_error_says_what_happened() -> None:
    let_openai_tell()
    let_openai_tell()
    cause = httpx.ConnectError("connection refused")
    tell(call(status=None, error_type="ConnectError", attempts=2), cause)
    request = httpx.Request("POST", "http://host")
    error = openai.APIConnectionError(request=request)
    assert str(error) == "Connection error."
    error.__cause__ = cause
    assert str(error).startswith(
        "Connection error. connection refused [http://host:8000, model boiler, 2 attempts in 0."
    )
    assert "check host, port and scheme of base_url" in str(error)
    outer = openai.APITimeoutError(request)
    outer.__cause__ = error
    assert str(outer).startswith("Request timed out. connection refused [")


def test_other_errors_of_openais_read_as_ever() -> None:
    let_openai_tell()
    error = openai.APIConnectionError(request=httpx.Request("POST", "http://host"))
    error.__cause__ = httpx.ConnectError("no")
    assert str(error) == "Connection error."
