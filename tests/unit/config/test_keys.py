"""`api_key` as users write it, and as it may stand in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from nat.runtime.loader import load_config
from pydantic import SecretStr, ValidationError

from nat_dynamo_plugin import secrets
from nat_dynamo_plugin.config.keys import sources_of
from nat_dynamo_plugin.config.model import DynamoModelConfig

KEY = "sk-canary-of-keys"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_made", {})
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("A_KEY_OF_MINE", "sk-canary-of-env\n")
    for number in ("", "2_", "3_"):
        monkeypatch.setenv(f"DYNAMO_{number}API_KEY", "")


def config(api_key: Any) -> DynamoModelConfig:
    return DynamoModelConfig(model_name="m", base_url="http://127.0.0.1:1/v1", api_key=api_key)


@pytest.mark.parametrize(
    ("given", "sources"),
    [
        (None, []),
        ("", []),
        (" \n", []),
        (KEY, [KEY]),
        (f"{KEY}\n", [KEY]),
        (SecretStr(f" {KEY}"), [KEY]),
        ("env:OPENAI_API_KEY", ["env:OPENAI_API_KEY"]),
        (" env: OPENAI_API_KEY ", ["env:OPENAI_API_KEY"]),
        ("file:/run/secrets/my key", ["file:/run/secrets/my key"]),
        ("file:~/key", ["file:~/key"]),
        (["env:A", f"{KEY}\n", "file:key", SecretStr("EMPTY")], ["env:A", KEY, "file:key", "EMPTY"]),
        # NAT has put it in for `${A_KEY_OF_MINE}`.
        ("sk-canary-of-env", ["env:A_KEY_OF_MINE"]),
        ("sk-canary-of-env\n", ["env:A_KEY_OF_MINE"]),
    ],
)
def test_what_is_read(given: Any, sources: list[str]) -> None:
    assert sources_of(config(given).api_key) == sources


def test_none_named_is_openais_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert sources_of(None) == ["env:OPENAI_API_KEY"]
    assert sources_of(config("env:A").api_key) == ["env:A"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("$A_KEY", r"api_key is no key: use env:NAME, file:/path, a key, or a list of these; did you mean env:A_KEY\?"),
        ("${A_KEY}", r"did you mean env:A_KEY\?"),
        ("os.environ/A_KEY", r"did you mean env:A_KEY\?"),
        ("env://A_KEY", r"did you mean env:A_KEY\?"),
        ("ENV:A_KEY", r"did you mean env:A_KEY\?"),
        ("env:${A_KEY}", r"did you mean env:A_KEY\?"),
        ("A_KEY_OF_MINE", r"did you mean env:A_KEY_OF_MINE\?"),
        ("A_KEY_THAT_IS_NO_API_KEY", r"did you mean env:A_KEY_THAT_IS_NO_API_KEY\?"),
        ("file:///run/key", r"did you mean file:/run/key\?"),
        ("File:/run/key", r"did you mean file:/run/key\?"),
        (__file__, r"did you mean file:.*/test_keys.py\?"),
        (f"env:{KEY}", r"api_key is no key: use env:NAME, file:/path, a key, or a list of these \["),
        (f"ENV:{KEY}", r"api_key is no key: use env:NAME, file:/path, a key, or a list of these \["),
        ("file:", r"api_key is no key"),
        ("sk canary", r"api_key can not travel in a header"),
        ("sk-cänary-of-keys", r"api_key can not travel in a header"),
        ([], r"api_key=\[\] is not allowed: use env:NAME.*; leave it out for OPENAI_API_KEY"),
        (["env:A", ""], r"api_key\[1\] is empty"),
        (["env:A", None], r"api_key\[1\] is of type NoneType"),
        (["env:A", "env:B", "env:A\n"], r"api_key\[2\] is api_key\[0\] again; keep one"),
        (7, r"api_key is of type int"),
        ({"env": KEY}, r"api_key is of type dict"),
    ],
)
def test_what_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        config(given)
    assert "canary" not in str(caught.value) and "cänary" not in str(caught.value)


def test_a_missing_source_does_not_keep_a_config_from_being_read() -> None:
    # It may be read where the key is not, to be looked at; whoever starts the LLM needs it.
    assert config("env:NO_SUCH_KEY").api_key is not None


@pytest.mark.parametrize("mode", ["python", "json"])
@pytest.mark.parametrize(
    "given", [KEY, [KEY, "env:A", "sk-canary-2nd"], "sk-canary-of-env", "file:/run/key", "EMPTY", None]
)
def test_no_key_is_in_a_dump_and_it_comes_back(given: Any, mode: str) -> None:
    made = config(given)
    dumped = made.model_dump(mode=mode)
    assert "canary" not in repr(dumped) and "canary" not in made.model_dump_json() and "canary" not in repr(made)
    again = DynamoModelConfig.model_validate(dumped)
    assert again == made and sources_of(again.api_key) == sources_of(made.api_key)
    assert again.model_dump(mode=mode) == dumped


def test_a_process_of_its_own_finds_the_key_of_a_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    dumped = config(KEY).model_dump()
    assert dumped["api_key"] == "env:DYNAMO_API_KEY"
    monkeypatch.setattr(secrets, "_made", {})  # as in a child, which has the environment and no more
    assert sources_of(DynamoModelConfig.model_validate(dumped).api_key) == ["env:DYNAMO_API_KEY"]
    assert secrets.os.environ["DYNAMO_API_KEY"] == KEY


def test_variables_that_nat_puts_in_are_in_no_written_config(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("llms:\n  d:\n    _type: dynamo\n    model_name: m\n    api_key: ${A_KEY_OF_MINE}\n")
    written = yaml.safe_dump(load_config(file).model_dump(mode="json", include={"llms"}))
    assert "canary" not in written and "env:A_KEY_OF_MINE" in written
