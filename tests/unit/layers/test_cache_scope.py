"""Whose answers are whose."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.http.headers import Headers
from nat_dynamo_plugin.layers.cache_scope import CallerScope, take_answer_key
from nat_dynamo_plugin.question.org import org_digest, org_scope
from nat_dynamo_plugin.question.repetition import repetition_scope


def call(authorization: str | None = None) -> Call:
    raw = [] if authorization is None else [(b"authorization", authorization.encode())]
    native = SimpleNamespace(method="POST", url="http://server/v1/chat/completions")
    return Call(native, "chat_completions", Headers(raw), b"{}")


def scope(key: bytes | None = b"Bearer sk-canary", answer_key: Any = None) -> CallerScope:
    return CallerScope(None if key is None else lambda: key, answer_key, "unused")


def test_the_org_comes_before_the_key() -> None:
    with org_scope("acme"):
        one, other = scope().of(call()), scope(b"Bearer another").of(call("Bearer mine"))
    assert one == other and one[1] == org_digest("acme")
    assert "acme" not in str(one) and "canary" not in str(one)


def test_without_an_org_it_is_the_key_that_is_sent() -> None:
    ours, placeholder = scope().of(call()), scope().of(call("Bearer unused"))
    assert ours == placeholder and ours[1] == "" and "canary" not in ours[0]
    assert scope().of(call("Bearer mine")) == scope(None).of(call("Bearer mine")) != ours
    assert scope(None).of(call()) not in (ours, scope().of(call("Bearer mine")))


def test_an_org_named_as_a_key_is_none() -> None:
    with org_scope("key\0Bearer sk-canary"):
        named = scope().of(call())
    assert named[0] != scope().of(call())[0]


def test_an_answer_key_is_asked_for_once_a_call() -> None:
    keys = iter("abcd")
    asked: list[str] = []

    def ask() -> str:
        asked.append(next(keys))
        return asked[-1]

    one = scope(answer_key=ask)
    assert " answer a" in one.of(call())[0] and take_answer_key(ask) == "a"
    assert " answer b" in one.of(call())[0]
    one.answered()  # out of the cache, so nobody takes it
    assert take_answer_key(ask) == "c" and asked == ["a", "b", "c"]


def test_a_repetition_has_a_scope_of_its_own() -> None:
    scopes = []
    for number in (0, 1, 2, 1):
        with repetition_scope(number):
            scopes.append(scope().of(call()))
    assert len(set(scopes)) == 3 and scopes[1] == scopes[3] and scopes[0] == scope().of(call())
