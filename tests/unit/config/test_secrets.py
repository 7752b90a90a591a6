"""No secret is in an error, in a config's text, or in a log, wherever it stands beside what is wrong."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

import pytest
from nat.runtime.loader import load_config
from pydantic import ValidationError

from nat_dynamo_plugin.clients.arguments import checked_arguments
from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.sweep.config import DynamoSweepConfig

KEY = "sk-not-a-real-key-1234567890"
PASSWORD = "hunter2-of-ann"


def clean(text: str) -> bool:
    return not any(secret[k : k + 6] in text for secret in (KEY, PASSWORD) for k in range(len(secret) - 6))


WRONG: list[dict[str, Any]] = [
    # The secret is beside the wrong field, ...
    *(
        {"api_key": KEY, **wrong}
        for wrong in (
            {"prefix_ols": "LOW"},
            {"max_tokens": 0},
            {"temperature": "hot"},
            {"thinking": True},
            {"request_timeout": 0},
            {"connection": {"read_timeout": -1}},
            {"prefix_osl": 1, "nvext_prefix_osl": 1},
            {"max_active_prefixes": 4, "prefix_template": None},
            {"model_name": None},
            {"local": {}, "base_url": f"http://ann:{PASSWORD}@h/v1"},
        )
    ),
    # ... or in it.
    {"nvext_api_key": KEY},
    {"api_kye": KEY},
    {"prefix_token": PASSWORD},
    {"api_key": {"deep": [KEY]}},
    {"max_tokens": KEY},
    {"prefix_osl": KEY},
    {"base_url": f"ann:{PASSWORD}@h:8000"},
    {"base_url": f"http://ann:{PASSWORD}@h:99999"},
    {"retry": {"api_key": KEY}},
    {"retry": {"on_errors": {"password": PASSWORD}}},
    {"local": {"env": {"HF_TOKEN": [PASSWORD]}}},
    {"layers": [{"json:JSONEncoder": {"password": PASSWORD}}]},
    {"max_retries": -1, "extra_headers": {"Authorization": PASSWORD}},
]


@pytest.mark.parametrize("fields", WRONG, ids=lambda fields: "-".join(fields))
def test_a_config_error(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError) as caught:
        DynamoModelConfig(**{"model_name": "m", **fields})
    error = caught.value
    assert clean(str(error)) and clean(repr(error)) and clean(str(error.errors()))
    assert clean(
        "".join(traceback.format_exception(error)).partition("pydantic_core._pydantic_core.ValidationError")[2]
    )
    assert error.__context__ is None  # the error with the secrets is not behind it


@pytest.mark.parametrize(
    "line", ["prefix_ols: LOW", "max_tokens: 0", "thinking: true", "nvext_secret: sk-secret", "model_name:"]
)
def test_a_config_error_in_nats_words(tmp_path: Path, line: str) -> None:
    # It is NAT's model that prints the input, so what ours says of printing does not count.
    file = tmp_path / "config.yml"
    name = "" if "model_name" in line else "model_name: m\n    "
    file.write_text(f"llms:\n  d:\n    _type: dynamo\n    api_key: {KEY}\n    {name}{line}\n")
    with pytest.raises(ValueError) as caught:
        load_config(file)
    assert clean(str(caught.value)) and "sk-secret" not in str(caught.value)
    assert "llms" in str(caught.value)


def test_what_is_wrong_is_still_shown() -> None:
    with pytest.raises(ValidationError, match=r"temperature\n.*input_value='hot'"):
        DynamoModelConfig(model_name="m", temperature="hot", api_key=KEY)  # type: ignore[arg-type]


def test_a_framework_that_does_not_take_a_key() -> None:
    with pytest.raises(ValueError, match="openai_api_key=") as caught:
        checked_arguments({"openai_api_key": KEY}, {"temperature"}, "Client")
    assert clean(str(caught.value))


def test_the_configs_text() -> None:
    config = DynamoModelConfig(
        model_name="m",
        base_url=f"http://ann:{PASSWORD}@h/v1",
        api_key=KEY,  # type: ignore[arg-type]
        openai_api_key=KEY,
        extra_headers={"Authorization": PASSWORD},
    )
    assert clean(repr(config)) and clean(str(config)) and "@h/v1" in repr(config)
    local = LocalDynamoConfig(env={"HF_TOKEN": PASSWORD})
    assert clean(repr(local)) and clean(repr(DynamoModelConfig(local=local)))
    # What is hidden is still there.
    assert config.require_server() == f"http://ann:{PASSWORD}@h/v1" and local.env["HF_TOKEN"] == PASSWORD


def test_a_log(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.DEBUG):
        DynamoModelConfig(
            model_name="m",
            prefix_learned=tmp_path / "x.json",
            api_key=KEY,  # type: ignore[arg-type]
            base_url=f"http://ann:{PASSWORD}@h/v1",
        )
    assert "is not used" in caplog.text and clean(caplog.text)


def test_the_server_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"ann:{PASSWORD}@h")
    with pytest.raises(ValueError, match="OPENAI_BASE_URL=") as caught:
        DynamoModelConfig(model_name="m").require_server()
    assert clean(str(caught.value))


def test_a_sweeps_storage() -> None:
    with pytest.raises(ValidationError) as caught:
        DynamoSweepConfig(storage=f"postgresql://ann:{PASSWORD}@h/db", n_trials=[f"postgresql://ann:{PASSWORD}@h/db"])
    assert PASSWORD not in caught.value.errors()[0]["msg"]
