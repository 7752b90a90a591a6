"""The version of a prompt is the same as long as its stable part is, however it is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nat_dynamo_plugin.http.call import Reply
from nat_dynamo_plugin.layers.prompt_version import HASH_CHARS, PromptVersionLayer, version_of
from nat_dynamo_plugin.question.hints import DynamoHints

SYSTEM = {"role": "system", "content": "Answer in 3 words. Ünd \u2028."}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
USER = {"role": "user", "content": "Is it shut?"}


def of(messages: list[Any] | None = None, **fields: Any) -> str | None:
    return version_of(json.dumps({"messages": messages or [SYSTEM, USER], **fields}).encode())


def test_what_changes_from_call_to_call_does_not_matter() -> None:
    version = of(tools=[TOOL])
    assert version is not None and len(version) == HASH_CHARS and int(version, 16) >= 0
    assert version == of([SYSTEM, {"role": "user", "content": "And now?"}, SYSTEM, USER], tools=[TOOL], stream=True)
    assert version == of(tools=[TOOL], temperature=1, model="other")


def test_how_it_is_written_does_not_matter() -> None:
    parts = {"content": [{"text": SYSTEM["content"], "type": "text"}], "role": "system"}
    tool = {"function": {"parameters": {"type": "object"}, "name": "f"}, "type": "function"}
    written = json.dumps({"tools": [tool], "messages": [parts, USER]}, ensure_ascii=False, indent=1).encode()
    assert version_of(written) == of(tools=[TOOL]) == of([{**SYSTEM, "role": "developer"}, USER], tools=[TOOL])


@pytest.mark.parametrize(
    "other",
    [
        of(),
        of([{**SYSTEM, "content": "Answer in 4 words."}, USER], tools=[TOOL]),
        of([SYSTEM, SYSTEM, USER], tools=[TOOL]),
        of([USER, SYSTEM], tools=[TOOL]),
        of(tools=[TOOL, TOOL]),
        of(tools=[{**TOOL, "type": "other"}]),
        of([{"role": "system", "content": [{"type": "image_url", "image_url": {}}]}], tools=[TOOL]),
    ],
)
def test_what_stays_the_same_does(other: str | None) -> None:
    assert other is not None and other != of(tools=[TOOL])


def test_of_the_responses_api() -> None:
    one, two = (version_of(json.dumps({"input": "x", "instructions": text}).encode()) for text in ("a", "b"))
    assert one is not None and two is not None and one != two


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages":7}', b'{"prompt":"x"}', b'{"tools":[]}'])
def test_of_what_has_none(body: bytes) -> None:
    assert version_of(body) is None


def test_a_null_is_nothing() -> None:
    body = b'{"messages":[{"role":"system","content":"a"}],"tools":%s,"instructions":null}'
    assert version_of(body % b"null") == version_of(body % b"[]") is not None


def test_it_is_in_the_record_in_the_end_and_a_name_by_scope_wins(drive: Any, scripted: Any) -> None:
    body = json.dumps({"messages": [SYSTEM, USER]}).encode()
    for name in (None, "greeting-2"):
        with DynamoHints.scope(prompt_version=name):
            call = drive.call(None, body)
            drive(PromptVersionLayer(), scripted(Reply.made(200, b"{}")), call)
        call.finish()
        assert call.record.prompt_version == (name or of())


@pytest.mark.parametrize("name", ["", "x" * 257, 7])
def test_names_are_short_texts(name: Any) -> None:
    with pytest.raises(ValueError, match="prompt_version"), DynamoHints.scope(prompt_version=name):
        pass
