from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from nat_dynamo_plugin import dialects as wire
from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.dialects.dynamo import Dynamo
from nat_dynamo_plugin.dialects.nvext_annotations import Annotations
from nat_dynamo_plugin.dialects.prefix_headers import PrefixHeaders
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.dialects.scripted import Replay
from nat_dynamo_plugin.dialects.speaker import Speaker
from nat_dynamo_plugin.dialects.telemetry import Telemetry
from nat_dynamo_plugin.dialects.usage import Usage, openai_usage
from nat_dynamo_plugin.plan.serving import NO_PLAN, ServingPlan
from nat_dynamo_plugin.question.hints import PrefixHints, PrefixLevel
from nat_dynamo_plugin.question.identity import CallIdentity

TELEMETRY = b'"extra_fields":["worker_id","timing"]'


def a_plan(**changes: Any) -> ServingPlan:
    values: dict[str, Any] = {
        "identity": CallIdentity("q 1", "q%201", None, ("wf",)),
        "hints": PrefixHints(total_requests=10, osl=PrefixLevel.MEDIUM, iat=60),
        "session_id": "q%201",
        "parent_session_id": None,
        "last_call": False,
        "expected_output_tokens": 512,
        "speculative_prefill": True,
        "priority": None,
        "latency_sensitivity": None,
    }
    return ServingPlan(**{**values, **changes})


def agent_hints(**changes: Any) -> dict[str, Any]:
    hints: dict[str, Any] = Dynamo().say(a_plan(**changes)).members["nvext"]["agent_hints"]
    return hints


class TestDynamo:
    def test_exact_bytes(self) -> None:
        said = Speaker([Dynamo()]).say(a_plan())
        assert said.headers == ((b"x-dynamo-session-id", b"q%201"),)
        assert said.encoded == (b'{"nvext":{"agent_hints":{"osl":512,"speculative_prefill":true},' + TELEMETRY + b"}}")

    def test_all_of_it(self) -> None:
        changes = {
            "parent_session_id": "p",
            "last_call": True,
            "priority": -3,
            "latency_sensitivity": 2.0,
            "speculative_prefill": False,
        }
        assert Dynamo().say(a_plan(**changes)).headers == (
            (b"x-dynamo-session-id", b"q%201"),
            (b"x-dynamo-parent-session-id", b"p"),
            (b"x-dynamo-session-final", b"true"),
        )
        assert agent_hints(**changes) == {"osl": 512, "priority": -3, "latency_sensitivity": 2.0}

    def test_no_session_no_session_headers(self) -> None:
        assert Dynamo().say(a_plan(session_id=None, parent_session_id="p", last_call=True)).headers == ()

    def test_numbers_stay_within_the_schema(self) -> None:
        said = agent_hints(expected_output_tokens=2**40, priority=-(2**40))
        assert said["osl"] == 2**32 - 1 and said["priority"] == -(2**31)

    def test_nothing_expected_asks_for_telemetry_alone(self) -> None:
        said = Dynamo().say(a_plan(expected_output_tokens=None, speculative_prefill=False))
        assert said.members == Telemetry().say(NO_PLAN).members


def test_prefix_headers_exact_bytes() -> None:
    assert PrefixHeaders().say(a_plan()) == Said(
        (
            (b"x-prefix-id", b"q%201"),
            (b"x-prefix-total-requests", b"10"),
            (b"x-prefix-osl", b"MEDIUM"),
            (b"x-prefix-iat", b"LOW"),
        )
    )


def test_annotations_exact_bytes() -> None:
    said = Speaker([Annotations()]).say(a_plan())
    assert said.headers == ()
    assert said.encoded == b'{"nvext":{"annotations":["prefix_id:q 1","total_requests:10","osl:512","iat:60"]}}'


def test_telemetry_needs_no_plan() -> None:
    assert not Telemetry().needs_plan
    assert Speaker([Telemetry()]).say().encoded == b'{"nvext":{' + TELEMETRY + b"}}"


class TestReplay:
    def test_the_key_is_asked_for_each_time(self) -> None:
        keys = iter(["a/1", "a/2", None])
        replay = Replay(lambda: next(keys))
        said = [replay.say(NO_PLAN).members for _ in range(3)]
        assert said == [
            {"nvext": {"annotations": ["output_replay_id:a/1"]}},
            {"nvext": {"annotations": ["output_replay_id:a/2"]}},
            {},
        ]
        assert not (replay.needs_plan or replay.is_steady or replay.fails_open)


class TestUsage:
    @pytest.mark.parametrize(
        ("said", "usage"),
        [
            (
                {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
                Usage(9, 4, 2),
            ),
            ({"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 0}}, Usage(9, 0, 2)),
            ({"prompt_tokens": 9, "prompt_tokens_details": None, "completion_tokens": None}, Usage(9, None, None)),
            ({"prompt_tokens": "9", "completion_tokens": True, "prompt_tokens_details": [1]}, None),
            ({"prompt_tokens": -1}, None),
            ({}, None),
        ],
    )
    def test_openais_names(self, said: dict[str, Any], usage: Usage | None) -> None:
        assert openai_usage(said) == usage
        assert Dynamo().read_usage(said) == usage


class Theirs(Dialect):
    """As short as one can be."""

    name = "theirs"

    def say(self, plan: ServingPlan) -> Said:
        return Said(members={"prompt_cache_key": plan.session_id})


def theirs(plan: ServingPlan) -> Said:
    return Said(members={"user": plan.session_id})


class Duck:
    needs_plan = False

    def say(self, plan: ServingPlan) -> Said:
        return Said(((b"x-duck", b"quack"),))

    def read_usage(self, usage: Any) -> Usage:
        return Usage(cached_tokens=usage["duck"])


class TestRegistry:
    def test_the_default_is_the_first_two(self) -> None:
        assert wire.DEFAULT_WIRE == ("dynamo", "prefix_headers") == tuple(wire.BUILTIN)[:2]
        for name, dialect in zip(wire.BUILTIN, wire.load_dialects(list(wire.BUILTIN)), strict=True):
            assert dialect.name == name

    def test_an_unknown_dialect_names_the_nearest(self) -> None:
        with pytest.raises(ValueError, match=r"prefix_wire='prefix_header'.*did you mean prefix_headers"):
            wire.check_dialects(["prefix_header"])

    def test_a_name_given_twice_counts_once(self) -> None:
        assert [d.name for d in wire.load_dialects(["dynamo", "telemetry", "dynamo"])] == ["dynamo", "telemetry"]

    @pytest.fixture
    def install(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        module = types.ModuleType("their_module")
        monkeypatch.setitem(sys.modules, "their_module", module)

        def install(thing: Any) -> Dialect:
            module.thing = thing  # type: ignore[attr-defined]
            entry = EntryPoint("theirs", "their_module:thing", wire.ENTRY_POINT_GROUP)
            monkeypatch.setattr(wire, "entry_points", lambda group: [entry] if group == wire.ENTRY_POINT_GROUP else [])
            (loaded,) = wire.load_dialects(["theirs"])
            return loaded

        return install

    @pytest.mark.parametrize("thing", [Theirs, Theirs(), theirs, Duck, Duck()])
    def test_a_third_party_adds_a_class_an_object_or_a_function(self, install: Any, thing: Any) -> None:
        loaded = install(thing)
        assert loaded.name == "theirs" and isinstance(loaded.say(a_plan()), Said)
        assert loaded.say(a_plan()) != Said()

    def test_what_a_foreign_dialect_says_of_itself_is_heard(self, install: Any) -> None:
        loaded = install(Duck)
        assert not loaded.needs_plan and loaded.read_usage({"duck": 3}) == Usage(cached_tokens=3)
        assert install(theirs).needs_plan and install(theirs).read_usage({"prompt_tokens": 1}) == Usage(1)

    @pytest.mark.parametrize("thing", [3, None, "say"])
    def test_what_is_no_dialect_is_refused(self, install: Any, thing: Any) -> None:
        with pytest.raises(ValueError, match=r"prefix_wire='theirs': their_module:thing can not be loaded"):
            install(thing)
