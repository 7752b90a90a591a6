from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_dynamo_plugin.http.splice import COPY_LIMIT_BYTES, NvextFields, may_have_nvext, merged_nvext, spliced

FIELDS = NvextFields((("osl", 512), ("speculative_prefill", True)), ("a:1",), ("worker_id", "timing"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
keys = st.text() | st.sampled_from(["nvext", 'nvext"', "model", "messages"])
objects = st.dictionaries(keys, json_values, max_size=6)
spaces = st.sampled_from(["", " ", "\n", "\r\n\t "])


def sent(body: bytes, fields: NvextFields = FIELDS) -> Any:
    parts = spliced(body, fields)
    assert parts is not None
    return json.loads(b"".join(parts))


@given(objects, st.booleans(), st.sampled_from([None, 1, "\t"]), spaces, spaces)
def test_the_server_parses_the_callers_body_and_exactly_our_fields(
    body: dict[str, Any], ascii_only: bool, indent: Any, before: str, after: str
) -> None:
    try:
        raw = (before + json.dumps(body, ensure_ascii=ascii_only, indent=indent) + after).encode()
    except UnicodeEncodeError:
        return  # lone surrogates can not travel unescaped
    if "nvext" in body and not isinstance(body["nvext"], dict):
        assert spliced(raw, FIELDS) is None
        return
    got = sent(raw)
    ours = got.pop("nvext")
    callers = body.pop("nvext", {})
    assert got == body
    assert ours == merged_nvext(FIELDS.to_dict(), callers)


@given(st.integers() | st.text() | st.none() | st.lists(json_values, max_size=3) | st.booleans())
def test_no_object_no_splice(body: Any) -> None:
    assert spliced(json.dumps(body).encode(), FIELDS) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(body: bytes) -> None:
    spliced(body, FIELDS)


@given(objects)
def test_an_empty_and_a_full_object_have_no_stray_comma(body: dict[str, Any]) -> None:
    sent(json.dumps({k: v for k, v in body.items() if k != "nvext"}).encode())
    sent(b" { \n } ")


class TestTheCallerWins:
    def test_objects_are_merged(self) -> None:
        got = sent(b'{"nvext":{"agent_hints":{"osl":7,"priority":2},"greed_sampling":true}}')["nvext"]
        assert got["agent_hints"] == {"osl": 7, "priority": 2, "speculative_prefill": True}
        assert got["greed_sampling"] is True

    def test_lists_are_joined_and_an_annotation_of_his_replaces_ours(self) -> None:
        got = sent(b'{"nvext":{"annotations":["a:9","z:1"],"extra_fields":["timing"]}}')["nvext"]
        assert got["annotations"] == ["a:9", "z:1"]
        assert got["extra_fields"] == ["timing", "worker_id"]

    @pytest.mark.parametrize("value", [b"null", b'"x"', b"3", b"[]"])
    def test_an_nvext_that_is_no_object_is_left_alone(self, value: bytes) -> None:
        assert spliced(b'{"nvext":' + value + b"}", FIELDS) is None

    def test_the_word_in_a_prompt_is_no_key(self) -> None:
        body = {"messages": [{"content": 'say "nvext" and {"nvext": 1}'}], "tools": [{"nvext": 3}]}
        got = sent(json.dumps(body).encode())
        assert got.pop("nvext") == FIELDS.to_dict() and got == body


class TestLargeBodies:
    @given(st.integers(min_value=0, max_value=600_000), st.booleans())
    @settings(max_examples=60)
    def test_the_key_is_found_wherever_it_stands(self, offset: int, there: bool) -> None:
        body = b'{"p":"' + b"x" * offset + b'","' + (b"nvext" if there else b"nvexu") + b'":{"k":1},"q":"'
        body += b"t" * (COPY_LIMIT_BYTES + 1) + b'"}'
        assert may_have_nvext(body) is there
        assert ("k" in sent(body)["nvext"]) is there

    def test_the_body_is_not_copied(self) -> None:
        body = b'{"p":"' + b"x" * 1_000_000 + b'"}'
        parts = spliced(body, FIELDS)
        assert parts is not None and len(parts) == 2
        assert isinstance(parts[1], memoryview) and parts[1].obj is body


def test_a_refusal_names_one_of_our_fields() -> None:
    assert FIELDS.is_named_in("unknown field `speculative_prefill`, expected one of ...")
    assert FIELDS.is_named_in("Unrecognized request argument supplied: nvext")
    assert not FIELDS.is_named_in("max_tokens is too large")
    assert not FIELDS.is_named_in("the oslo model")
