from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from nat_dynamo_plugin import dialects as wire
from nat_dynamo_plugin.dialects import dynamo, nvext_annotations, prefix_headers
from nat_dynamo_plugin.dialects.fields import WireFields
from nat_dynamo_plugin.http.splice import NvextFields
from nat_dynamo_plugin.plan.serving import ServingPlan
from nat_dynamo_plugin.question.hints import PrefixHints, PrefixLevel
from nat_dynamo_plugin.question.prefix import CallIdentity


def a_plan(**changes: Any) -> ServingPlan:
    identity = CallIdentity("q 1", "q%201", None, ("wf",), True)
    values: dict[str, Any] = {
        "identity": identity,
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


def body_of(said: WireFields) -> bytes:
    fields = NvextFields(said.agent_hints, said.annotations, ())
    return json.dumps(fields.to_dict(), separators=(",", ":")).encode()


class TestDynamo:
    def test_exact_bytes(self) -> None:
        said = dynamo.say(a_plan())
        assert said.headers == ((b"x-dynamo-session-id", b"q%201"),)
        assert body_of(said) == b'{"agent_hints":{"osl":512,"speculative_prefill":true}}'

    def test_all_of_it(self) -> None:
        said = dynamo.say(
            a_plan(
                parent_session_id="p", last_call=True, priority=-3, latency_sensitivity=2.0, speculative_prefill=False
            )
        )
        assert said.headers == (
            (b"x-dynamo-session-id", b"q%201"),
            (b"x-dynamo-parent-session-id", b"p"),
            (b"x-dynamo-session-final", b"true"),
        )
        assert dict(said.agent_hints)["priority"] == -3
        assert dict(said.agent_hints)["latency_sensitivity"] == 2.0

    def test_no_session_no_session_headers(self) -> None:
        assert dynamo.say(a_plan(session_id=None, parent_session_id="p", last_call=True)).headers == ()

    def test_numbers_stay_within_the_schema(self) -> None:
        said = dict(dynamo.say(a_plan(expected_output_tokens=2**40, priority=-(2**40))).agent_hints)
        assert said["osl"] == 2**32 - 1 and said["priority"] == -(2**31)


def test_prefix_headers_exact_bytes() -> None:
    assert prefix_headers.say(a_plan()) == WireFields(
        (
            (b"x-prefix-id", b"q%201"),
            (b"x-prefix-total-requests", b"10"),
            (b"x-prefix-osl", b"MEDIUM"),
            (b"x-prefix-iat", b"LOW"),
        )
    )


def test_annotations_exact_bytes() -> None:
    said = nvext_annotations.say(a_plan())
    assert said.headers == ()
    assert body_of(said) == b'{"annotations":["prefix_id:q 1","total_requests:10","osl:512","iat:60"]}'


class TestRegistry:
    def test_the_default_is_the_first_two(self) -> None:
        assert wire.DEFAULT_WIRE == ("dynamo", "prefix_headers") == tuple(wire.BUILTIN)[:2]
        assert wire.load_dialects(wire.DEFAULT_WIRE) == (dynamo.say, prefix_headers.say)

    def test_an_unknown_dialect_names_the_nearest(self) -> None:
        with pytest.raises(ValueError, match=r"prefix_wire='prefix_header'.*did you mean prefix_headers"):
            wire.check_dialects(["prefix_header"])

    def test_a_third_party_adds_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = EntryPoint("theirs", "nat_dynamo_plugin.dialects.nvext_annotations:say", wire.ENTRY_POINT_GROUP)
        monkeypatch.setattr(wire, "entry_points", lambda group: [entry] if group == wire.ENTRY_POINT_GROUP else [])
        assert wire.load_dialects(["theirs"]) == (nvext_annotations.say,)
