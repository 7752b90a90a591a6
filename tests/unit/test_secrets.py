"""Secrets that are known are in no text, however they are escaped or cut; nothing else is changed."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from nat_dynamo_plugin import secrets
from nat_dynamo_plugin.secrets import LEAST_CHARS, MOST_PAST, Secrets

KEY = "sk-canary+1/2=\"é'<&>\\x"
PASSWORD = "p@ss:wörd-of-ann"

keys = st.text(st.characters(exclude_categories=("Cs",)), min_size=8, max_size=40).filter(
    lambda text: len(text.strip()) == len(text) and "*" not in text and secrets.is_secret_text(text)
)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Secrets:
    made = Secrets()
    monkeypatch.setattr(secrets, "known", made)
    return made


@pytest.mark.parametrize(
    "escape",
    [
        str,
        json.dumps,
        lambda text: json.dumps(text, ensure_ascii=False),
        lambda text: json.dumps(text).replace("/", "\\/"),
        lambda text: json.dumps(json.dumps({"message": text})),
        repr,
        lambda text: repr(text.encode()),
        lambda text: repr({"error": repr(text)}),
        html.escape,
        quote,
        lambda text: quote(text, safe=""),
        quote_plus,
        lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
    ],
)
@given(secret=keys | st.just(KEY))
def test_a_secret_is_found_however_it_is_escaped(escape: Any, secret: str) -> None:
    known = Secrets()
    known.remember(secret)
    said = escape(secret)
    text = known.redacted(f"The key {said} is wrong")
    assert said.strip("\"'") not in text and text.startswith("The key ") and text.endswith(" is wrong")
    assert secrets.MASK in text


@given(secret=keys, cut=st.integers(LEAST_CHARS, 39), before=st.text(max_size=8))
def test_the_first_part_of_a_secret_that_is_cut_off_is_none_either(secret: str, cut: int, before: str) -> None:
    known = Secrets()
    known.remember(secret)
    assert secret[:cut] not in known.redacted(before + secret[:cut]).removeprefix(before)


@given(
    secret=keys, text=st.text(st.characters(exclude_categories=("Cs",)), max_size=60), content=st.binary(max_size=60)
)
def test_nothing_else_is_changed(secret: str, text: str, content: bytes) -> None:
    known = Secrets()
    known.remember(secret)
    # Digits only, which no escape of eight other characters ends in.
    assert known.redacted("7" * len(text)) == "7" * len(text)
    assert Secrets().redacted(text) == text and Secrets().redacted_bytes(content) == content
    if not any(form[:LEAST_CHARS] in text for form in secrets.forms_of(secret)):
        assert known.redacted(text) == text and known.redacted_bytes(text.encode()) == text.encode()


@given(content=st.binary(max_size=40), secret=keys)
def test_bytes_that_are_no_text(content: bytes, secret: str) -> None:
    known = Secrets()
    known.remember(secret)
    clean = known.redacted_bytes(content + secret.encode() + content)
    assert secret.encode() not in clean


def test_a_secret_within_another_leaves_nothing() -> None:
    known = Secrets()
    known.remember("sk-abcdef", "sk-abcdef-and-more")
    assert known.redacted("1 sk-abcdef-and-more 2 sk-abcdef 3") == "1 *** 2 *** 3"


@pytest.mark.parametrize(
    "text", ["", "short", "unused", "Not-Needed", "env:OPENAI_API_KEY", "file:/run/secrets/key", "\n"]
)
def test_what_is_no_secret(text: str) -> None:
    known = Secrets()
    known.remember(text)
    assert known.redacted(f"a {text} b") == f"a {text} b"


def test_the_line_end_of_a_mounted_secret() -> None:
    known = Secrets()
    known.remember("sk-canary-1\n")
    assert known.redacted("b'Bearer sk-canary-1\\n'") == "b'Bearer ***\\n'"


def test_replaced_keys_are_kept_out_for_a_while() -> None:
    known = Secrets()
    for k in range(MOST_PAST + 2):
        known.remember(f"sk-canary-{k:03}-x")
        known.retire(f"sk-canary-{k:03}-x")
    assert known.redacted("sk-canary-001-x sk-canary-002-x.") == "sk-canary-001-x ***."
    known.retire("sk-never-known")
    assert known.redacted("sk-never-known") == "sk-never-known"


class Inner(BaseModel, extra="allow"):
    url: str = ""
    question_key: str = ""
    api_key: SecretStr | None = None


def test_the_secrets_of_a_config(known: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Inner(
        api_key=SecretStr("sk-canary-1"),
        url=f"https://ann:{quote(PASSWORD)}@host/v1",
        question_key="question",
        extra_headers={"Authorization": "Bearer sk-canary-2", "accept": "application/json"},
        more=[{"deep": Inner(api_key=SecretStr("sk-canary-3"))}, ("https://bob:two-words@h",)],
        named="env:A_NAME_API_KEY",
    )
    secrets.remember_config(config)
    basic = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    for secret in ("sk-canary-1", "sk-canary-2", "sk-canary-3", PASSWORD, quote(PASSWORD), basic, "two-words"):
        assert known.redacted(f"a {secret} b") == "a *** b"
    plain = "question application/json A_NAME_API_KEY host"
    assert known.redacted(plain) == plain


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "HF_TOKEN", "DB_PASSWORD", "X_SECRET_KEY", "nvidia_api_keys", "K_API_KEY_2"]
)
def test_the_secrets_of_the_environment(
    name: str, known: Secrets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, "canary-of-env\n")
    monkeypatch.setenv("A_FILE_CREDENTIALS", str(tmp_path))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallelism")
    monkeypatch.setenv("FLAG_TOKEN", "enabled")
    secrets.remember_environment()
    assert known.redacted("a canary-of-env b") == "a *** b"
    plain = f"{tmp_path} parallelism enabled"
    assert known.redacted(plain) == plain


def test_an_exception_and_what_it_came_from(known: Secrets) -> None:
    known.remember("sk-canary-1")
    try:
        try:
            raise ValueError("Illegal header value b'Bearer sk-canary-1'", b"sk-canary-1", 7)
        except ValueError as first:
            raise ExceptionGroup("sk-canary-1", [KeyError("sk-canary-1")]) from first
    except ExceptionGroup as error:
        error.__context__.__cause__ = error  # type: ignore[union-attr]
        secrets.clean(error)
        cause = error.__cause__
        assert cause is not None and cause.args == ("Illegal header value b'Bearer ***'", b"***", 7)
        assert "sk-canary-1" not in str(error.exceptions[0])


def test_an_exception_without_a_secret_stays_as_it_is(known: Secrets) -> None:
    known.remember("sk-canary-1")
    error = ValueError("no", ["sk"])
    args = error.args
    secrets.clean(error)
    assert error.args is args


def test_a_variable_for_a_secret_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_made", {})
    monkeypatch.setenv("DYNAMO_API_KEY", "of-somebody-else")
    monkeypatch.setenv("MY_TOKEN", "sk-canary-7\n")
    for name in ("DYNAMO_2_API_KEY", "DYNAMO_3_API_KEY"):
        monkeypatch.setenv(name, "")  # so that it is gone after the test
    assert secrets.variable_for("sk-canary-7") == "MY_TOKEN" and secrets.made_variable("MY_TOKEN") is None
    assert [secrets.variable_for(key) for key in ("sk-canary-8", "sk-canary-9", "sk-canary-8")] == [
        *("DYNAMO_2_API_KEY", "DYNAMO_3_API_KEY", "DYNAMO_2_API_KEY"),
    ]
    assert secrets.made_variable("DYNAMO_3_API_KEY") == "sk-canary-9"
    monkeypatch.setenv("DYNAMO_3_API_KEY", "changed-since")
    assert secrets.made_variable("DYNAMO_3_API_KEY") is None
