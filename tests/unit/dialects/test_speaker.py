from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from nat_dynamo_plugin.dialects import load_dialects, speaker
from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.dialects.dynamo import Dynamo
from nat_dynamo_plugin.dialects.said import Said, combined, merged
from nat_dynamo_plugin.dialects.scripted import Replay
from nat_dynamo_plugin.dialects.speaker import Speaker
from nat_dynamo_plugin.dialects.usage import Usage
from nat_dynamo_plugin.plan.serving import ServingPlan, make_plan
from nat_dynamo_plugin.question import once
from nat_dynamo_plugin.question.hints import PrefixHints
from nat_dynamo_plugin.question.identity import CallIdentity

IDENTITY = CallIdentity("q", "q", None, ("wf",))


def a_plan(index: int = 0, **hints: Any) -> ServingPlan:
    return make_plan(IDENTITY, PrefixHints(**{"total_requests": 10, "osl": 3, "iat": 4, **hints}), index)


class Says(Dialect):
    """Says the same each time, and counts how often."""

    def __init__(self, said: Any, name: str = "says") -> None:
        self.said, self.name, self.times = said, name, 0

    def say(self, plan: ServingPlan) -> Said:
        self.times += 1
        if isinstance(self.said, Exception):
            raise self.said
        said: Said = self.said
        return said


def test_dialects_are_said_in_order() -> None:
    voice = Speaker(load_dialects(["dynamo", "prefix_headers", "annotations"]))
    said = voice.say(a_plan())
    assert voice.names == ("dynamo", "prefix_headers", "annotations")
    assert [name for name, _ in said.headers][:2] == [b"x-dynamo-session-id", b"x-prefix-id"]
    nvext = said.members["nvext"]
    assert nvext["annotations"][0] == "prefix_id:q" and nvext["agent_hints"]["osl"] == 3
    assert nvext["extra_fields"] == ["worker_id", "timing"]


def test_no_dialect_says_nothing() -> None:
    assert Speaker([]).say(a_plan()) == Said(encoded=b"{}")


def test_a_dialect_named_twice_says_its_header_once() -> None:
    names = [name for name, _ in Speaker([Dynamo(), Dynamo()]).say(a_plan()).headers]
    assert names == [b"x-dynamo-session-id"]


def test_of_two_that_say_one_thing_the_first_is_heard() -> None:
    one = Says(Said(((b"x-a", b"1"),), {"a": 1, "l": ["k:1"]}), "one")
    two = Says(Said(((b"x-a", b"2"), (b"x-b", b"2")), {"a": 2, "b": 2, "l": ["k:2", "m:2"]}), "two")
    said = Speaker([one, two]).say(a_plan())
    assert said.headers == ((b"x-a", b"1"), (b"x-b", b"2"))
    assert said.members == {"a": 1, "b": 2, "l": ["k:1", "m:2"]}


def test_edits_are_made_one_after_the_other() -> None:
    said = combined([Said(edit=lambda body: body.update(a=1)), Said(edit=lambda body: body.update(b=body["a"] + 1))])
    body: dict[str, Any] = {}
    assert said.edit is not None
    said.edit(body)
    assert body == {"a": 1, "b": 2}
    assert combined([Said(), Said()]).edit is None


class TestMemory:
    def test_one_plan_is_said_once(self) -> None:
        dialect = Says(Said())
        voice = Speaker([dialect])
        for index in range(5):
            voice.say(a_plan(index))
        assert dialect.times == 1, "the number of calls to come makes no other plan"
        voice.say(a_plan(osl=4))
        assert dialect.times == 2

    def test_it_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(speaker, "MAX_KEPT", 3)
        dialect = Says(Said())
        voice = Speaker([dialect])
        for osl in (1, 2, 3, 3, 4, 4, 3):
            voice.say(a_plan(osl=osl))
        assert dialect.times == 5 and len(voice._kept) == 2

    def test_what_varies_is_asked_for_each_call(self) -> None:
        keys = iter("ab")
        voice = Speaker([*load_dialects(["dynamo", "annotations"]), Replay(lambda: next(keys))])
        for key in "ab":
            annotations = voice.say(a_plan()).members["nvext"]["annotations"]
            assert annotations[0] == "prefix_id:q" and annotations[-1] == f"output_replay_id:{key}"
        assert len(voice._kept) == 1


class TestFailsOpen:
    @pytest.mark.parametrize(
        "said",
        [
            RuntimeError("a bug of theirs"),
            None,
            {"headers": ()},
            Said(((b"x-a", b"line\r\nbreak"),)),
            Said((("x-a", "text"),)),  # type: ignore[arg-type]
            Said(((b"x a", b"1"),)),
            Said(((b"X-A", b"1"),)),
            Said(((b"x-a", b""),)),
            Said(((b"x-a", "\u00e9".encode()),)),
            Said(members={"a": "\ud83d"}),
            Said(members={"a": object()}),
            Said(members={1: "a"}),  # type: ignore[dict-item]
        ],
    )
    def test_the_others_are_said_and_the_failure_once(self, caplog: pytest.LogCaptureFixture, said: Any) -> None:
        once._said.clear()
        voice = Speaker([Says(said, "third"), Dynamo()])
        with caplog.at_level(logging.WARNING, "nat_dynamo_plugin"):
            for osl in (1, 2, 3):
                heard = voice.say(a_plan(osl=osl))
                assert heard == Speaker([Dynamo()]).say(a_plan(osl=osl))
        assert len(caplog.records) == 1 and "The dialect third failed" in caplog.text

    def test_a_script_without_that_answer_is_for_the_caller(self) -> None:
        def unknown() -> str:
            raise KeyError("no such answer")

        with pytest.raises(KeyError, match="no such answer"):
            Speaker([Dynamo(), Replay(unknown)]).say(a_plan())


class TestWithoutAPlan:
    def test_only_those_that_need_none_speak(self) -> None:
        voice = Speaker(load_dialects(["dynamo", "telemetry", "annotations"])).without_plan()
        assert voice is not None and voice.names == ("telemetry",)
        assert voice.say().members == {"nvext": {"extra_fields": ["worker_id", "timing"]}}

    def test_the_default_says_nothing(self) -> None:
        assert Speaker(load_dialects(["dynamo", "prefix_headers"])).without_plan() is None


class TestUsage:
    def test_only_dialects_with_names_of_their_own_read_it(self) -> None:
        class Other(Says):
            def read_usage(self, usage: Mapping[str, Any]) -> Usage | None:
                return Usage(cached_tokens=usage["hits"]) if "hits" in usage else None

        (read,) = Speaker([Other(Said(), "other"), Dynamo()]).usage_readers
        assert read({"hits": 2}) == Usage(cached_tokens=2) and read({}) is None


class TestHeaders:
    SAID = Said(((b"x-s", b"1"), (b"x-p", b"2"), (b"x-o", b"3")), rests_on={b"x-p": b"x-s"})

    @pytest.mark.parametrize(
        ("callers", "ours"),
        [
            ([], [b"x-s", b"x-p", b"x-o"]),
            ([b"accept"], [b"x-s", b"x-p", b"x-o"]),
            ([b"x-s"], [b"x-o"]),
            ([b"x-p"], [b"x-s", b"x-o"]),
        ],
    )
    def test_the_caller_wins(self, callers: list[bytes], ours: list[bytes]) -> None:
        assert [name for name, _ in self.SAID.headers_beside(callers)] == ours
        assert [name for name, _ in combined([self.SAID, Said()]).headers_beside(callers)] == ours


class TestMerged:
    def test_objects_at_any_depth_and_the_caller_wins(self) -> None:
        assert merged({"a": {"b": {"c": 1, "d": 2}}, "e": 1}, {"a": {"b": {"c": 9}}, "e": None}) == {
            "a": {"b": {"c": 9, "d": 2}},
            "e": None,
        }

    def test_lists_are_joined_and_a_key_of_his_replaces_ours(self) -> None:
        assert merged({"l": ["a:1", "b:1", "x"]}, {"l": ["z:1", "a:9"]}) == {"l": ["z:1", "a:9", "b:1", "x"]}

    def test_nothing_given_is_changed(self) -> None:
        ours, callers = {"a": {"b": 1}, "l": [1]}, {"a": {"c": 2}, "l": [2]}
        merged(ours, callers)
        assert (ours, callers) == ({"a": {"b": 1}, "l": [1]}, {"a": {"c": 2}, "l": [2]})
