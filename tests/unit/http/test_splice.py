from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_dynamo_plugin.dialects.said import merged
from nat_dynamo_plugin.http.splice import COPY_LIMIT_BYTES, edited, may_name, spliced

MEMBERS: dict[str, Any] = {
    "nvext": {
        "agent_hints": {"osl": 512, "speculative_prefill": True},
        "annotations": ["a:1"],
        "extra_fields": ["worker_id", "timing"],
    },
    "prompt_cache_key": "q",
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
keys = st.text() | st.sampled_from(["nvext", 'nvext"', "prompt_cache_key", "model", "messages"])
nvexts = st.fixed_dictionaries(
    {},
    optional={
        "agent_hints": json_values | st.fixed_dictionaries({"osl": json_values}),
        "annotations": json_values | st.lists(st.sampled_from(["a:2", "b:1"])),
        "other": json_values,
    },
)
objects = st.dictionaries(keys, json_values, max_size=6) | st.builds(
    lambda rest, nvext: {**rest, "nvext": nvext}, st.dictionaries(keys, json_values, max_size=3), nvexts
)
spaces = st.sampled_from(["", " ", "\n", "\r\n\t "])


def sent(body: bytes, members: dict[str, Any] = MEMBERS) -> Any:
    done = spliced(body, members)
    assert done is not None
    return json.loads(b"".join(done.parts))


@given(objects, st.booleans(), st.sampled_from([None, 1, "\t"]), spaces, spaces)
@settings(max_examples=300)
def test_the_server_parses_the_callers_body_merged_with_our_members(
    body: dict[str, Any], ascii_only: bool, indent: Any, before: str, after: str
) -> None:
    raw = (before + json.dumps(body, ensure_ascii=ascii_only, indent=indent) + after).encode()
    done = spliced(raw, MEMBERS)
    assert done is not None
    got = json.loads(b"".join(done.parts))
    assert got == merged(MEMBERS, body)
    assert done.sent == {name: got[name] for name in MEMBERS}
    assert done.adds is (got != body)


@given(st.integers() | st.text() | st.none() | st.lists(json_values, max_size=3) | st.booleans())
def test_no_object_no_splice(body: Any) -> None:
    assert spliced(json.dumps(body).encode(), MEMBERS) is None
    assert edited(json.dumps(body).encode(), lambda data: data.update(a=1)) is None


@given(st.binary(max_size=200) | st.text('{}[]",: nvext1', max_size=40).map(str.encode))
def test_any_bytes_are_survived(body: bytes) -> None:
    for raw in (body, b'{"nvext":' + body + b"}"):
        spliced(raw, MEMBERS)
        edited(raw, lambda data: data.update(a=1))


@given(objects)
def test_an_empty_and_a_full_object_have_no_stray_comma(body: dict[str, Any]) -> None:
    sent(json.dumps({k: v for k, v in body.items() if k not in MEMBERS}).encode())
    assert sent(b" { \n } ") == MEMBERS


def test_no_members_leave_the_body() -> None:
    assert spliced(b'{"a":1}', {}) == ((b'{"a":1}',), {}, False)


def test_an_encoding_that_is_there_is_used() -> None:
    done = spliced(b'{"a":1}', {"b": 2}, b'{"b": 2}')
    assert done is not None and done.parts == (b'{"b": 2,"a":1}',)


class TestTheCallerWins:
    def test_objects_are_merged_and_what_was_sent_is_told(self) -> None:
        done = spliced(b'{"nvext":{"agent_hints":{"osl":7,"priority":2},"greed_sampling":true}}', MEMBERS)
        assert done is not None
        got = json.loads(b"".join(done.parts))["nvext"]
        assert got["agent_hints"] == {"osl": 7, "priority": 2, "speculative_prefill": True}
        assert got["greed_sampling"] is True
        assert done.sent["nvext"] == got

    def test_lists_are_joined_and_an_annotation_of_his_replaces_ours(self) -> None:
        got = sent(b'{"nvext":{"annotations":["a:9","z:1"],"extra_fields":["timing"]}}')["nvext"]
        assert got["annotations"] == ["a:9", "z:1"]
        assert got["extra_fields"] == ["timing", "worker_id"]

    @pytest.mark.parametrize("value", ["null", '"x"', "3", "[]"])
    def test_an_nvext_that_is_no_object_is_left_alone(self, value: str) -> None:
        body = f'{{"nvext":{value}}}'.encode()
        done = spliced(body, {"nvext": MEMBERS["nvext"]})
        assert done == ((body,), {"nvext": json.loads(value)}, False)

    def test_the_word_in_a_prompt_is_no_key(self) -> None:
        body = {"messages": [{"content": 'say "nvext" and {"nvext": 1}'}], "tools": [{"nvext": 3}]}
        assert sent(json.dumps(body).encode()) == {**MEMBERS, **body}

    def test_a_name_that_encoders_escape_is_looked_for_too(self) -> None:
        assert sent(b'{"h\\u00e9":1}', {"h\u00e9": 2}) == {"h\u00e9": 1}


class TestTheCallersBytesStay:
    ODD = (
        b'"a":1E400,"b":1.0,"c":-0,"d":123456789012345678901234567890,"a":2,"e":"\\ud83d","f":"\\u00e9\xc3\xa9",'
        b'"g":1e5 ,\n "h" : [ 1.10 , {"i":-0.0} ]'
    )

    @pytest.mark.parametrize("order", [b'{%b,"nvext":{"x":1E400}}', b'{"nvext":{"x":1E400},%b}'])
    def test_beside_a_merge(self, order: bytes) -> None:
        done = spliced(order % self.ODD, MEMBERS)
        assert done is not None
        got = b"".join(done.parts)
        assert self.ODD in got and b'"x":1E400' in got
        assert json.loads(got)["nvext"]["agent_hints"] == MEMBERS["nvext"]["agent_hints"]

    def test_of_two_members_of_one_name_the_last_counts(self) -> None:
        got = b"".join((spliced(b'{"nvext":{"x":1},"nvext":{"y":2}}', {"nvext": {"z": 3}}) or pytest.fail()).parts)
        assert got == b'{"nvext":{"x":1},"nvext":{"z":3,"y":2}}'

    @given(objects, st.sampled_from([None, 2]))
    def test_what_an_edit_leaves_alone(self, body: dict[str, Any], indent: Any) -> None:
        raw = json.dumps(body, indent=indent).encode()
        assert edited(raw, lambda data: None) == raw
        changed = edited(raw, lambda data: data.update(added=[1]))
        assert changed is not None and json.loads(changed) == {**body, "added": [1]}

    def test_beside_an_edit(self) -> None:
        def mark(body: dict[str, Any]) -> None:
            body["messages"][1]["cache"] = True
            body["messages"].append({"n": 3})

        body = b'{%b,"messages":[{"n":1E400, "m":"\\ud83d"},{"n":1.0},{"n":-0}],"z":1.0}' % self.ODD.replace(
            b'"a":2,', b""
        )
        got = edited(body, mark)
        assert got is not None
        for text in (b'"a":1E400', b'"c":-0', b'"d":123456789012345678901234567890', b'"e":"\\ud83d"', b"[ 1.10 ,"):
            assert text in got
        assert got.endswith(b'"messages":[{"n":1E400, "m":"\\ud83d"},{"n":1.0,"cache":true},{"n":-0},{"n":3}],"z":1.0}')

    def test_true_is_not_one(self) -> None:
        assert edited(b'{"a":1,"b":true}', lambda body: body.update(a=True, b=1)) == b'{"a":true,"b":1}'

    def test_text_without_utf8_goes_out_escaped(self) -> None:
        assert edited(b"{}", lambda body: body.update(a="\ud83d", b="\u00e9")) == b'{"a":"\\ud83d","b":"\xc3\xa9"}'

    def test_an_edit_that_fails_is_none(self) -> None:
        assert edited(b'{"a":1}', lambda body: body["messages"].clear()) is None
        assert edited(b'{"a":1}', lambda body: body.update(a=object())) is None


class TestLargeBodies:
    @given(st.integers(min_value=0, max_value=600_000), st.booleans())
    @settings(max_examples=60, deadline=None)
    def test_the_key_is_found_wherever_it_stands(self, offset: int, there: bool) -> None:
        body = b'{"p":"' + b"x" * offset + b'","' + (b"nvext" if there else b"nvexu") + b'":{"k":1},"q":"'
        body += b"t" * (COPY_LIMIT_BYTES + 1) + b'"}'
        assert may_name(body, "nvext") is there
        assert ("k" in sent(body)["nvext"]) is there

    def test_the_body_is_not_copied(self) -> None:
        body = b'{"p":"' + b"x" * 1_000_000 + b'"}'
        done = spliced(body, MEMBERS)
        assert done is not None and len(done.parts) == 2 and done.sent is MEMBERS
        assert isinstance(done.parts[1], memoryview) and done.parts[1].obj is body

    def test_a_body_nested_too_deep_to_parse_is_sent_as_it_is(self) -> None:
        body = b'{"nvext":{},"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
        assert spliced(body, MEMBERS) is None
        assert edited(body, lambda data: data.update(a=1)) is None
