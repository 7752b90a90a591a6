from __future__ import annotations

import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from nat.data_models.optimizable import SearchSpace
from nat.llm.openai_llm import OpenAIModelConfig
from openai.resources.chat.completions import Completions
from openai.resources.responses import Responses
from pydantic import ValidationError

from nat_dynamo_plugin.config.model import EMBEDDED_MAX_TOKENS, EMBEDDED_MODEL_NAME, DynamoModelConfig
from nat_dynamo_plugin.question.hints import PrefixLevel


def config(**fields: Any) -> DynamoModelConfig:
    return DynamoModelConfig(**{"model_name": "m", **fields})


class TestDocumentedFields:
    def test_defaults_of_1_4(self) -> None:
        c = config()
        assert c.prefix_template == "nat-dynamo-{uuid}"
        assert c.prefix_total_requests == 10
        assert c.prefix_osl is PrefixLevel.MEDIUM and c.prefix_iat is PrefixLevel.MEDIUM
        assert c.request_timeout == 600.0
        assert c.hints_enabled

    def test_null_turns_hints_off(self) -> None:
        assert not config(prefix_template=None).hints_enabled

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("prefix_total_requests", 0),
            ("prefix_total_requests", 51),
            ("prefix_osl", "big"),
            ("prefix_iat", 0),
            ("request_timeout", 0),
            ("connect_timeout", -1),
            ("max_tokens", 0),
            ("prefix_wire", ["dinamo"]),
            ("prefix_template", "{uid}"),
        ],
    )
    def test_a_value_out_of_range_names_field_and_value(self, field: str, value: Any) -> None:
        with pytest.raises(ValidationError) as caught:
            config(**{field: value})
        assert field in str(caught.value)
        assert str(value[0] if isinstance(value, list) else value) in str(caught.value)

    def test_field_names(self) -> None:
        names = DynamoModelConfig.get_dynamo_field_names()
        assert {"prefix_template", "prefix_total_requests", "prefix_osl", "prefix_iat", "request_timeout"} <= names
        assert names <= set(DynamoModelConfig.model_fields)
        own = {n for n in DynamoModelConfig.model_fields if n.startswith(("prefix_", "nvext_", "dynamo_"))}
        assert own | {"local", "admission", "retry", "connection", "layers", "cache_salt", "verify_ssl"} <= names
        # What OpenAI takes, and what NAT's `_type: openai` has, is not ours.
        assert not names & {
            "temperature",
            "top_p",
            "seed",
            "max_tokens",
            "api_key",
            "base_url",
            "model_name",
            "thinking",
        }
        assert names - set(OpenAIModelConfig.model_fields) == set(DynamoModelConfig.model_fields) - set(
            OpenAIModelConfig.model_fields
        ) - {"max_tokens"}


class TestNamesOf1_9:
    def test_aliases_with_numbers_and_levels(self) -> None:
        c = config(
            nvext_prefix_id_template="t-{uuid}",
            nvext_prefix_total_requests=4,
            nvext_prefix_osl=900,
            nvext_prefix_iat="low",
            nvext_prediction_trie_path="trie.json",
            nvext_max_sensitivity=9,
            nvext_cache_pin_type="ephemeral",
            nvext_cache_control_mode="always",
            enable_nvext_hints=True,
        )
        assert (c.prefix_template, c.prefix_total_requests, c.prefix_osl) == ("t-{uuid}", 4, 900)
        assert c.prefix_iat is PrefixLevel.LOW
        assert str(c.prefix_predictions) == "trie.json" and c.max_sensitivity == 9

    def test_its_switch(self) -> None:
        assert not config(enable_nvext_hints=False).hints_enabled

    def test_both_names_of_a_field_are_an_error(self) -> None:
        with pytest.raises(ValidationError, match="two names of one field"):
            config(nvext_prefix_osl=1, prefix_osl=2)


class TestUnknownFields:
    @pytest.mark.parametrize(
        ("field", "near"),
        [
            ("prefix_total_request", "prefix_total_requests"),
            ("prefix_ols", "prefix_osl"),
            ("nvext_prefix_ios", "nvext_prefix_iat|nvext_prefix_osl"),
            ("prefix_tempalte", "prefix_template"),
            ("dynamo_wire", "prefix_wire"),
            ("nvext_total", "known are"),
            ("prefx_template", "prefix_template"),
            # Near misses of fields without our prefix, of NAT's own, and of flat names.
            ("max_active_prefix", "max_active_prefixes"),
            ("request_timeot", "request_timeout"),
            ("max_conections", "max_connections"),
            ("temperatur", "temperature"),
            ("Temperature", "temperature"),
            ("base_ulr", "base_url"),
            ("admision", "admission"),
            # A field of a block, beside it; and one of NAT's with our prefix.
            ("read_timeout", r"connection\.read_timeout"),
            ("workers", r"local\.workers"),
            ("nvext_temperature", r"did you mean temperature\?"),
        ],
    )
    def test_the_nearest_is_named(self, field: str, near: str) -> None:
        with pytest.raises(ValidationError, match=f"{field}=.*({near})"):
            config(**{field: 1})

    def test_openai_arguments_pass(self) -> None:
        c = config(frequency_penalty=0.5, temperature=0.1, max_tokens=9, verify_ssl=False, request_timeout=3)
        assert c.openai_arguments == {"frequency_penalty": 0.5, "temperature": 0.1, "max_tokens": 9}

    def test_every_openai_argument_passes(self) -> None:
        arguments = {
            name
            for function in (Completions.create, Responses.create)
            for name in signature(function).parameters
            if name not in ("self", "model")
        }
        servers = {
            "top_k",
            "min_p",
            "min_tokens",
            "top_a",
            "repetition_penalty",
            "guided_json",
            "ignore_eos",
            "timeout",
        }
        for name in (arguments | servers) - set(DynamoModelConfig.model_fields):
            assert name in (config(**{name: "x"}).model_extra or {}), name


class TestLocal:
    def test_the_model_name_is_made(self) -> None:
        c = DynamoModelConfig(local={})
        assert c.model_name == EMBEDDED_MODEL_NAME and c.effective_max_tokens == EMBEDDED_MAX_TOKENS

    def test_a_cluster_needs_a_model_name(self) -> None:
        with pytest.raises(ValidationError, match="model"):
            DynamoModelConfig(base_url="http://127.0.0.1:1/v1")

    def test_a_cluster_has_no_default_max_tokens(self) -> None:
        assert "max_tokens" not in config().openai_arguments

    def test_base_url_and_local_exclude_each_other(self) -> None:
        with pytest.raises(ValidationError, match=r"base_url=.*local"):
            config(base_url="http://127.0.0.1:1/v1", local={})

    def test_a_misspelt_local_field_is_an_error(self) -> None:
        with pytest.raises(ValidationError, match="wokers"):
            DynamoModelConfig(local={"wokers": 2})


def spaces() -> list[tuple[str, SearchSpace]]:
    found = []
    for name, field in DynamoModelConfig.model_fields.items():
        extra = field.json_schema_extra
        if name.startswith("prefix_") and isinstance(extra, dict) and "search_space" in extra:
            found.append((name, extra["search_space"]))
    return found


@pytest.mark.parametrize(("name", "space"), spaces())
def test_search_spaces_contain_their_defaults(name: str, space: SearchSpace) -> None:
    default = DynamoModelConfig.model_fields[name].default
    assert default in space.to_grid_values()
    if space.values is None:
        assert isinstance(space.low, int) and (default - space.low) % space.step == 0


def test_there_are_search_spaces_for_all_three_hints() -> None:
    assert [name for name, _ in spaces()] == ["prefix_total_requests", "prefix_osl", "prefix_iat"]


class TestServer:
    @pytest.mark.parametrize(
        ("url", "meant"),
        [
            ("localhost:8000", "http://localhost:8000/v1"),
            ("localhost:8000/v1", "http://localhost:8000/v1"),
            ("my-host/v1", "http://my-host/v1"),
            ("//my-host:8000", "http://my-host:8000/v1"),
            ("htp://my-host/v1", "http://my-host/v1"),
        ],
    )
    def test_a_url_without_scheme_is_refused_with_what_was_meant(self, url: str, meant: str) -> None:
        with pytest.raises(ValidationError, match=f"base_url='{url}' .*did you mean {meant}[?]"):
            config(base_url=url)

    @pytest.mark.parametrize(
        "url", ["http://", "http://host:99999/v1", "http://host:x/v1", "http://[::1/v1", "http://h/v1 "]
    )
    def test_a_url_that_is_none_is_refused(self, url: str) -> None:
        with pytest.raises(ValidationError, match="base_url="):
            config(base_url=url)

    @pytest.mark.parametrize(
        "url", ["http://h", "https://h:1/v1", "http://[::1]:8/v1", "http://ann:pw@h/v1", "HTTP://h/v1"]
    )
    def test_the_others_stay_as_they_are(self, url: str) -> None:
        assert config(base_url=url).require_server() == url

    def test_without_a_server_nothing_is_sent_to_openai(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
        for nothing in ({}, {"base_url": None}, {"base_url": " "}):
            with pytest.raises(ValueError, match="base_url: which server"):
                config(**nothing).require_server()
        assert DynamoModelConfig(local={}).require_server() is None
        monkeypatch.setenv("OPENAI_BASE_URL", "http://h/v1")
        assert config().require_server() == "http://h/v1"
        monkeypatch.setenv("OPENAI_BASE_URL", "h:8000")
        with pytest.raises(ValueError, match=r"OPENAI_BASE_URL='h:8000' .* did you mean http://h:8000/v1"):
            config().require_server()

    @pytest.mark.parametrize("url", ["http://HOST/v1", "http://host:80/v1/", "HTTP://ann:pw@host/v1"])
    def test_one_server_however_it_is_spelt(self, url: str) -> None:
        assert config(base_url=url).server == config(base_url="http://host/v1").server
        for other in ("https://host/v1", "http://host:8000/v1", "http://host/v2"):
            assert config(base_url=url).server != config(base_url=other).server
        assert config(base_url=url, model_name="n").server != config(base_url=url).server
        assert DynamoModelConfig(local={}).server is None


class TestWhatCanNotAct:
    @pytest.mark.parametrize("off", [{"prefix_template": None}, {"enable_nvext_hints": False}])
    @pytest.mark.parametrize("limit", [{"max_active_prefixes": 4}, {"admission": {"max_active_prefixes": "auto"}}])
    def test_admission_without_prefixes(self, off: dict[str, Any], limit: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match=r"max_active_prefixes=.* can not act with"):
            config(**off, **limit)
        assert not config(**off, admission={"max_active_prefixes": None}).hints_enabled

    @pytest.mark.parametrize(("field", "flat"), [("idle", "prefix_idle"), ("max_wait", "prefix_max_wait")])
    def test_waits_without_a_limit(self, field: str, flat: str) -> None:
        for given in ({flat: 5}, {"admission": {field: 5}}):
            with pytest.raises(ValidationError, match=f"{field}=5.0 .{flat}. does nothing without a limit"):
                config(**given)
        assert getattr(config(**{flat: 5}, max_active_prefixes="auto").admission, field) == 5

    @pytest.mark.parametrize("fields", [{}, {"prefix_osl": "auto", "prefix_template": None}])
    def test_learning_without_auto_is_warned_of(
        self, fields: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        # No error: a sweep may try numbers in the place of auto.
        config(prefix_learned=tmp_path / "learned.json", **fields)
        assert "is not used: nothing here is learned" in caplog.text

    def test_learning_with_auto_is_not(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        config(prefix_learned=tmp_path / "learned.json", prefix_iat="auto")
        assert caplog.text == ""

    def test_a_file_in_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ValidationError, match=r"prefix_learned='.*nowhere.*': there is no folder '.*nowhere'"):
            config(prefix_learned=tmp_path / "nowhere" / "learned.json", prefix_iat="auto")

    def test_a_dialect_twice(self) -> None:
        with pytest.raises(ValidationError, match="prefix_wire names 'dynamo' twice"):
            config(prefix_wire=["dynamo", "prefix_headers", "dynamo"])

    @pytest.mark.parametrize(
        "template",
        ["{run:d}", "{uuid:d}", "{run!z}", "{uuid:{run}}", "{function:%Y}", "{run:.0}", "\ud83d{uuid}", "{run", ""],
    )
    def test_a_template_that_fails_at_the_first_call(self, template: str) -> None:
        with pytest.raises(ValidationError, match="prefix_template"):
            config(prefix_template=template)

    @pytest.mark.parametrize("template", ["x", "{uuid}", "{run:>20}-{function!r}", "{conversation:.8}", "é{{}}"])
    def test_a_template_that_works(self, template: str) -> None:
        assert config(prefix_template=template).prefix_template == template

    @pytest.mark.parametrize("field", ["max_sensitivity", "max_tokens", "max_connections", "max_retries", "prefix_osl"])
    def test_half_a_number(self, field: str) -> None:
        with pytest.raises(
            ValidationError, match=f"{field}=2.5 is not allowed: use .*a whole number .*; the nearest is 2"
        ):
            config(**{field: 2.5})


class TestTuning:
    def test_nats_names_of_1_9_are_tuned_too(self) -> None:
        made = config(
            optimizable_params=["nvext_prefix_osl", "temperature"],
            search_space={"nvext_prefix_osl": SearchSpace(values=["LOW"])},
        )
        assert made.optimizable_params == ["prefix_osl", "temperature"]
        assert list(made.search_space) == ["prefix_osl"]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("prefix_ols", r"there is no such field to tune; did you mean prefix_osl\?"),
            ("max_active_prefixes", r"stands for admission\.max_active_prefixes, which is tuned by its path"),
            ("request_timeout", r"stands for connection\.read_timeout"),
        ],
    )
    def test_what_nat_would_pass_over_in_silence(self, name: str, text: str) -> None:
        with pytest.raises(ValidationError, match=text):
            config(optimizable_params=[name])
        with pytest.raises(ValidationError, match=text):
            config(search_space={name: {"low": 1, "high": 2}})

    def test_what_is_tuned_has_values_to_try(self) -> None:
        with pytest.raises(ValidationError, match="max_tokens has no search space; give its values in search_space"):
            config(optimizable_params=["max_tokens"])
        assert config(optimizable_params=["max_tokens"], search_space={"max_tokens": {"low": 1, "high": 2}})


NAT_READS = """
import sys
from nat.runtime.loader import load_config
llm = load_config(sys.argv[1]).llms["dynamo"]
print(llm.request_timeout, repr(llm))
"""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("connection: {read_timeout: 4}", "4.0 "),
        ("{prefix_template: null, max_active_prefixes: 4}", "max_active_prefixes=4 can not act"),
        ("prefix_osl: {api_key: sk-canary-1}", "prefix_osl"),
    ],
)
def test_in_nats_config_it_is_the_same_model_though_nobody_has_built_it_before(
    tmp_path: Path, line: str, says: str
) -> None:
    file = tmp_path / "config.yml"
    body = "\n    ".join(line.strip("{}").split(", ")) if line.startswith("{") else line
    file.write_text(
        "llms:\n  dynamo:\n    _type: dynamo\n    base_url: http://127.0.0.1:1/v1\n    model_name: m\n"
        f"    {body}\nworkflow:\n  _type: chat_completion\n  llm_name: dynamo\n"
    )
    done = subprocess.run([sys.executable, "-c", NAT_READS, str(file)], capture_output=True, text=True, timeout=120)
    assert says in done.stdout + done.stderr, done.stderr
    assert "sk-canary-1" not in done.stdout + done.stderr
