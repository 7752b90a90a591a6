from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.question import once
from nat_dynamo_plugin.question.ids import (
    CONVERSATION_KEY,
    MAX_ID_BYTES,
    PrefixTemplate,
    check_template,
    conversation_prefix,
    sessions_of,
    wire_id,
)

any_text = st.text(st.characters(), min_size=1, max_size=600)  # lone surrogates too


class TestSessionsOf:
    def test_chains_and_parents(self) -> None:
        assert sessions_of("q", []) == ("q", None)
        assert sessions_of("q", ["workflow"]) == ("q", None)
        assert sessions_of("q", ["workflow", "a"]) == ("q/a", "q")
        assert sessions_of("q", ["workflow", "b"]) == ("q/b", "q")
        assert sessions_of("q", ["workflow", "a", "b"]) == ("q/a/b", "q/a")

    def test_an_invocation_is_named_by_the_first_digits_of_its_id(self) -> None:
        one, two = "0b5f9c1e-77aa-4c1d-8f00-1234567890ab", "9d5f9c1e-77aa-4c1d-8f00-1234567890ab"
        assert sessions_of("q", ["wf", "a"], invocation=one, parent_invocation=two) == ("q/a#0b5f9c1e", "q")
        assert sessions_of("q", ["wf", "a", "b"], invocation=one, parent_invocation=two) == (
            "q/a/b#0b5f9c1e",
            "q/a#9d5f9c1e",
        )
        assert sessions_of("q", ["wf"], invocation=one, parent_invocation="root") == ("q", None)

    @pytest.mark.parametrize("pair", [("run-1", "run-2"), ("0190a1b2-0000-7000-8000-1", "0190a1b2-0000-7000-8000-2")])
    def test_ids_that_begin_alike_are_told_apart(self, pair: tuple[str, str]) -> None:
        one, two = (sessions_of("q", ["wf", "a"], invocation=invocation)[0] for invocation in pair)
        assert one != two and one.startswith("q/a#") and len(one) == len("q/a#") + 8

    @given(any_text, st.lists(any_text, min_size=2, max_size=3), any_text)
    def test_they_fit_a_header_whatever_the_names(self, prefix_id: str, path: list[str], invocation: str) -> None:
        for session in sessions_of(prefix_id, path, invocation=invocation, parent_invocation=invocation):
            assert session is None or (session.isascii() and session.isprintable() and len(session) <= MAX_ID_BYTES)


class TestConversations:
    def test_the_same_everywhere_and_not_to_be_read(self) -> None:
        hashed = conversation_prefix("anna@example.org")
        assert hashed == "conv-7e99059e56fda3c24124437fb6712a50"
        assert conversation_prefix("bert@example.org") != hashed

    def test_a_key_makes_it_unguessable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = set()
        for key in ("", "one", "two"):
            monkeypatch.setenv(CONVERSATION_KEY, key)
            conversation_prefix.cache_clear()
            seen.add(conversation_prefix("anna@example.org"))
        conversation_prefix.cache_clear()
        assert len(seen) == 3 and all(len(prefix) == len("conv-") + 32 for prefix in seen)

    @given(any_text)
    def test_any_id_has_one(self, conversation: str) -> None:
        assert wire_id(conversation_prefix(conversation)) == conversation_prefix(conversation)


class TestWireId:
    @given(any_text)
    def test_fits_a_header(self, identifier: str) -> None:
        safe = wire_id(identifier)
        assert 0 < len(safe) <= MAX_ID_BYTES
        assert safe.isascii() and safe.isprintable() and safe == safe.strip()
        assert wire_id(identifier) == safe

    @given(st.lists(st.text(st.characters(), max_size=400), min_size=2, max_size=2, unique=True))
    def test_different_ids_stay_different(self, pair: list[str]) -> None:
        assert wire_id(pair[0]) != wire_id(pair[1])

    def test_ordinary_ids_are_kept(self) -> None:
        assert wire_id("eval-multi_turn_base_12-3f2a/agent.x") == "eval-multi_turn_base_12-3f2a/agent.x"

    def test_a_long_id_keeps_its_head(self) -> None:
        safe = wire_id("question-" + "x" * 1000)
        assert safe.startswith("question-xxx") and len(safe) == MAX_ID_BYTES


class TestTemplate:
    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ("a-{uid}", r"\{uid\}.*did you mean \{uuid\}"),
            ("a-{conversation_id}", r"did you mean \{conversation\}"),
            ("a-{", "is not a template"),
            ("a-{}", "unknown placeholder"),
            ("", "non-empty"),
            ("{run:d}", "can not be filled in"),
            ("{uuid:d}", "can not be filled in"),
            ("{run!z}", "can not be filled in"),
            ("{run.x}", "unknown placeholder"),
            ("{run:{uuid}}", "can not be filled in"),
        ],
    )
    def test_errors_name_the_nearest(self, template: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            check_template(template)

    def test_a_constant_template_is_allowed(self) -> None:
        assert PrefixTemplate("shared").render(run="r", conversation=None, function=None) == "shared"

    def test_a_format_is_allowed(self) -> None:
        assert PrefixTemplate("{run:.4}").render(run="0123456", conversation=None, function=None) == "0123"

    def test_one_that_fails_for_a_value_leaves_the_clients_own_id(self, caplog: pytest.LogCaptureFixture) -> None:
        once._said.clear()
        template = PrefixTemplate("{run:.1}")
        with caplog.at_level(logging.WARNING, "nat_dynamo_plugin"):
            for _ in range(3):
                assert template.render(run=" r", conversation=None, function=None) == template.client_uuid
        assert len(caplog.records) == 1 and "prefix_template='{run:.1}'" in caplog.text
