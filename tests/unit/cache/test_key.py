"""Which requests are equal."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.cache.key import DROPPED, MARKS, key_of, read

from ...shuffling import shuffled

BODY: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "17"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "cache_control": {}}}}],
    "temperature": 0,
    "top_p": 0.5,
    "seed": 7,
    "stop": ["a", "b"],
    "logit_bias": {"12": -1.5},
    "nvext": {"top_k": 3, "agent_hints": {"osl": 1}},
    "guided_json": {"type": "object"},
    "a field that nobody knows": [True, False, None, {"deep": [1, 2]}],
}


def key(body: Any, scope: str = "", headers: Any = (), url: str = "http://a/v1/chat/completions") -> str:
    asked = read(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert asked is not None
    return key_of(asked.canonical, "POST", url, scope, list(headers))


@given(st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_count(draw: random.Random) -> None:
    assert key(shuffled(BODY, draw)) == key(BODY)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for name, one in items for leaf in leaves(one, (*path, name))]
    return [path]


def changed(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    made = copy.deepcopy(body)
    place = made
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return made


LEAVES = [path for path in leaves(BODY) if path[:2] != ("nvext", "agent_hints")]
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def same(one: Any, other: Any) -> bool:
    """Whether two values of JSON are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return (type(one) is type(other) and one == other) or (
        isinstance(one, int | float) and isinstance(other, int | float) and one == other
    )


@given(st.sampled_from(LEAVES), ANYTHING)
def test_every_leaf_counts(path: tuple[Any, ...], value: Any) -> None:
    was = BODY
    for name in path:
        was = was[name]
    assert (key(changed(BODY, path, value)) == key(BODY)) is same(was, value)


@pytest.mark.parametrize("name", sorted(DROPPED))
def test_what_does_not_change_an_answer_does_not_count(name: str) -> None:
    assert key({**BODY, name: "anything"}) == key({**BODY, name: {"else": 1}}) == key(BODY)


def test_hints_do_not_count_and_the_rest_of_nvext_does() -> None:
    for name in ("agent_hints", "extra_fields"):
        assert key(changed(BODY, ("nvext", name), ["x"])) == key(BODY)
    assert key(changed(BODY, ("nvext", "top_k"), 4)) != key(BODY)
    assert key(changed(BODY, ("nvext", "annotations"), ["output_replay_id:1"])) != key(BODY)
    assert key({**BODY, "nvext": {"agent_hints": {}}}) == key({n: v for n, v in BODY.items() if n != "nvext"})


@pytest.mark.parametrize("mark", MARKS)
def test_cache_marks_do_not_count_where_they_are_marks(mark: str) -> None:
    for path in (("messages", 0), ("messages", 1, "content", 0), ("tools", 0)):
        assert key(changed(BODY, (*path, mark), {"type": "ephemeral"})) == key(BODY)
    schema = ("tools", 0, "function", "parameters", mark)
    assert key(changed(BODY, schema, {"type": "string"})) != key(BODY)
    with_a_part = copy.deepcopy(BODY)
    with_a_part["messages"][1]["content"].append({mark: {"type": "default"}})
    assert key(with_a_part) == key(BODY)


def test_numbers_count_by_their_value() -> None:
    def with_number(text: str) -> str:
        return key(b'{"model": "m", "messages": [], "temperature": %b}' % text.encode())

    assert with_number("0") == with_number("0.0") == with_number("-0.0") == with_number("0e5")
    assert with_number("0.1") == with_number("0.10") == with_number("1e-1")
    distinct = ("0", "1", "0.1", "1e400", "1e500", "true", '"0"', "12345678901234567890123", "12345678901234567890124")
    assert len({with_number(text) for text in distinct}) == len(distinct)


def test_null_is_absent_where_openai_says_so() -> None:
    assert key({**BODY, "max_tokens": None}) == key(BODY)
    assert key({**BODY, "unknown": None}) != key(BODY)


def test_litellms_collision_is_none_here() -> None:
    """LiteLLM 1.109.1 joins `name: value` without a delimiter, so these two have one key there."""
    one = {"model": "m", "messages": [], "stop": "atop_p: 1"}
    other = {"model": "m", "messages": [], "stop": "a", "top_p": 1}
    assert key(one) != key(other)
    # Where the field is the user, both are equal here, but for what counts.
    assert key({"model": "m", "messages": [], "user": "atop_p: 1"}) != key(
        {"model": "m", "messages": [], "user": "a", "top_p": 1}
    )


def test_parts_of_the_key_do_not_run_into_each_other() -> None:
    keys = {
        key(BODY),
        key(BODY, scope="a"),
        key(BODY, headers=[(b"a", b"")]),
        key(BODY, headers=[(b"", b"a")]),
        key(BODY, url="http://a/v1/chat/completions?api-version=1"),
        key(BODY, url="http://b/v1/chat/completions"),
    }
    assert len(keys) == 6
    assert key(BODY, headers=[(b"a", b"1"), (b"b", b"2")]) == key(BODY, headers=[(b"b", b"2"), (b"a", b"1")])


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"a"', b'{"a": "\xff"}'])
def test_what_is_no_object_has_no_key(body: bytes) -> None:
    assert read(body) is None


def test_what_is_to_be_ignored_does_not_count() -> None:
    one, other = (read(json.dumps({**BODY, "seed": seed}).encode(), ["seed"]) for seed in (1, 2))
    assert one is not None and other is not None and one.canonical == other.canonical
