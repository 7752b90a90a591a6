from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.dialects.anthropic import Anthropic
from nat_dynamo_plugin.dialects.bedrock import Bedrock
from nat_dynamo_plugin.dialects.openai import mark_texts, version_of
from nat_dynamo_plugin.dialects.provider_cache import PromptCache

LONG_TEXT = "x" * 1100
MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}


def explicit(ttl: Any = None) -> Anthropic:
    return Anthropic(PromptCache("", "explicit", ttl))


def a_body(turns: int = 2) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": LONG_TEXT}]
    for n in range(turns):
        messages.append({"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "s"}]})
        messages[-1]["content"].append({"type": "tool_use", "id": "t", "name": "f", "input": {}})
        messages.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": str(n)}]})
    return {
        "model": "claude",
        "system": LONG_TEXT,
        "tools": [{"name": "a", "input_schema": {}}, {"name": "b", "description": LONG_TEXT, "input_schema": {}}],
        "messages": messages,
    }


def marks(thing: Any) -> list[Any]:
    """The marks, in the order of the prompt."""
    if isinstance(thing, dict) and "messages" in thing:
        return [one for name in ("tools", "system", "messages") for one in marks(thing.get(name))]
    if isinstance(thing, dict):
        return [thing["cache_control"]] if "cache_control" in thing else marks(list(thing.values()))
    return [one for each in thing for one in marks(each)] if isinstance(thing, list) else []


class TestAnthropic:
    def test_explicit_marks_are_on_tools_system_and_the_last_two_messages(self) -> None:
        body = a_body()
        explicit().edit(body)
        assert body["tools"][0].get("cache_control") is None and body["tools"][1]["cache_control"] == MARK
        assert body["system"] == [{"type": "text", "text": LONG_TEXT, "cache_control": MARK}]
        assert body["messages"][-1]["content"][-1]["cache_control"] == MARK
        assert body["messages"][-2]["content"][-1]["cache_control"] == MARK
        assert len(marks(body)) == 4 and "cache_control" not in body

    def test_automatic_is_one_member_and_nothing_else_changes(self) -> None:
        body = a_body()
        before = copy.deepcopy(body)
        Anthropic().edit(body)
        assert body == before | {"cache_control": MARK}

    def test_a_caller_who_marks_automatically_is_left_alone(self) -> None:
        for dialect in (Anthropic(), explicit("1h")):
            body = a_body() | {"cache_control": HOUR}
            before = copy.deepcopy(body)
            dialect.edit(body)
            assert body == before

    def test_with_four_marks_of_the_callers_there_are_no_more(self) -> None:
        body = a_body()
        body["system"] = [{"type": "text", "text": LONG_TEXT, "cache_control": MARK} for _ in range(4)]
        for dialect in (Anthropic(), explicit()):
            tried = copy.deepcopy(body)
            dialect.edit(tried)
            assert tried == body

    def test_no_mark_where_the_prefix_is_too_short_to_be_cached(self) -> None:
        body = {"system": "short", "messages": [{"role": "user", "content": "short"}]}
        explicit().edit(body)
        assert body == {"system": "short", "messages": [{"role": "user", "content": "short"}]}

    def test_thinking_and_empty_texts_are_never_marked(self) -> None:
        content = [{"type": "text", "text": LONG_TEXT}, {"type": "thinking", "thinking": "", "signature": ""}]
        body: dict[str, Any] = {"messages": [{"role": "user", "content": [*content, {"type": "text", "text": ""}]}]}
        explicit().edit(body)
        assert ["cache_control" in block for block in body["messages"][0]["content"]] == [True, False, False]

    def test_a_body_of_openais_form_is_marked_in_its_parts(self) -> None:
        tool = {"type": "function", "function": {"name": "f", "description": LONG_TEXT}}
        said = [{"role": "system", "content": LONG_TEXT}, {"role": "user", "content": "x"}]
        body: dict[str, Any] = {"messages": said, "tools": [tool]}
        Anthropic(PromptCache(ttl="1h")).edit(body)
        assert body["tools"] == [tool] and "cache_control" not in body
        assert [message["content"][0]["cache_control"] for message in body["messages"]] == [HOUR, HOUR]

    @given(
        st.lists(st.sampled_from([None, "5m", "1h"]), min_size=1, max_size=6),
        st.sampled_from([None, "1h", "5m"]),
        st.sampled_from(["automatic", "explicit"]),
    )
    def test_within_four_long_before_short_and_the_callers_stay(
        self, callers: list[str | None], ttl: Any, how: Any
    ) -> None:
        given_marks = [one for one in callers if one]
        blocks = [{"type": "text", "text": LONG_TEXT} for _ in callers]
        for block, one in zip(blocks, callers, strict=True):
            if one:
                block["cache_control"] = {"type": "ephemeral", "ttl": one}  # type: ignore[assignment]
        body: dict[str, Any] = {**a_body(), "system": blocks}
        before = copy.deepcopy(body)
        Anthropic(PromptCache("", how, ttl)).edit(body)
        found = [*marks(body), *([body["cache_control"]] if "cache_control" in body else [])]
        assert len(found) <= max(4, len(given_marks))
        lifetimes = [one.get("ttl", "5m") for one in found]
        if given_marks == sorted(given_marks):  # "1h" sorts before "5m": what the server takes at all
            assert lifetimes == sorted(lifetimes)
        for mine, theirs in zip(body["system"], before["system"], strict=True):
            assert "cache_control" not in theirs or mine == theirs


class TestBedrock:
    @staticmethod
    def a_body() -> dict[str, Any]:
        return {
            "modelId": "us.anthropic.claude-sonnet-5",
            "system": [{"text": LONG_TEXT}],
            "toolConfig": {"tools": [{"toolSpec": {"name": LONG_TEXT}}]},
            "messages": [{"role": "user", "content": [{"text": "a"}]}, {"role": "user", "content": [{"text": "b"}]}],
        }

    def test_claude_is_marked_everywhere(self) -> None:
        body = self.a_body()
        Bedrock(PromptCache(ttl="1h")).edit(body)
        point = {"cachePoint": {"type": "default", "ttl": "1h"}}
        places = (body["system"], body["toolConfig"]["tools"], *(message["content"] for message in body["messages"]))
        assert [place[-1] for place in places] == [point] * 4

    def test_nova_takes_none_in_tools_and_no_lifetime(self) -> None:
        body = self.a_body() | {"modelId": "amazon.nova-pro-v1:0"}
        Bedrock(PromptCache(ttl="1h")).edit(body)
        assert len(body["toolConfig"]["tools"]) == 1
        assert body["system"][-1] == {"cachePoint": {"type": "default"}}

    def test_others_are_left_alone(self) -> None:
        body = self.a_body() | {"modelId": "meta.llama4"}
        before = copy.deepcopy(body)
        Bedrock().edit(body)
        assert body == before

    def test_the_callers_points_count(self) -> None:
        body = self.a_body()
        point = {"cachePoint": {"type": "default"}}
        body["system"] = [{"text": LONG_TEXT}, point, {"text": "b"}, point, {"text": "c"}, point]
        Bedrock(PromptCache(ttl="1h")).edit(body)
        assert body["messages"][-1]["content"][-1] == point  # the one that is left, and short as the others
        assert len(body["system"]) == 6 and len(body["toolConfig"]["tools"]) == 1


class TestOpenAI:
    @pytest.mark.parametrize(
        ("model", "version"),
        [
            ("gpt-5", (5, 0)),
            ("gpt-5.6-sol", (5, 6)),
            ("openai/gpt-6", (6, 0)),
            ("gpt-4.1-mini", (4, 1)),
            ("gpt-4o", (4, 0)),
            ("o3", None),
            ("my-gpt-5", None),
        ],
    )
    def test_versions(self, model: str, version: tuple[int, int] | None) -> None:
        assert version_of(model) == version

    def test_a_call_of_an_older_model_is_not_marked_though_the_config_names_a_newer(self) -> None:
        body = {"model": "gpt-5", "messages": [{"role": "user", "content": "x"}]}
        before = copy.deepcopy(body)
        mark_texts(body)
        assert body == before

    def test_a_caller_who_marks_is_left_alone(self) -> None:
        part = {"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}
        body = {"model": "gpt-5.6", "messages": [{"role": "user", "content": [part]}, {"role": "user", "content": "y"}]}
        before = copy.deepcopy(body)
        mark_texts(body)
        assert body == before

    def test_three_marks_at_most(self) -> None:
        said = [{"role": "system", "content": "s"}, *({"role": "user", "content": str(n)} for n in range(6))]
        body: dict[str, Any] = {"model": "gpt-5.6", "messages": said}
        mark_texts(body)
        assert [isinstance(message["content"], list) for message in said] == [True, *[False] * 4, True, True]
