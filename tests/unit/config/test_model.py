from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat.data_models.optimizable import SearchSpace
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
        assert own <= names


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
        ],
    )
    def test_the_nearest_is_named(self, field: str, near: str) -> None:
        with pytest.raises(ValidationError, match=f"{field}=.*({near})"):
            config(**{field: 1})

    def test_openai_arguments_pass(self) -> None:
        c = config(frequency_penalty=0.5, temperature=0.1, max_tokens=9, verify_ssl=False, request_timeout=3)
        assert c.openai_arguments == {"frequency_penalty": 0.5, "temperature": 0.1, "max_tokens": 9}


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


@given(
    total=st.integers(1, 50),
    osl=st.sampled_from(list(PrefixLevel)) | st.integers(1, 10**6),
    iat=st.sampled_from(["low", "HIGH"]) | st.integers(1, 10**6),
    wire=st.lists(st.sampled_from(["dynamo", "prefix_headers", "annotations"]), unique=True),
)
def test_a_dumped_config_comes_back_the_same(total: int, osl: Any, iat: Any, wire: list[str]) -> None:
    # NAT's optimizer dumps and validates again, after which every field counts as set.
    first = config(prefix_total_requests=total, prefix_osl=osl, prefix_iat=iat, prefix_wire=wire, frequency_penalty=1)
    second = DynamoModelConfig.model_validate(first.model_dump(mode="python"))
    assert second.model_dump() == first.model_dump()
    assert second.prefix_hints == first.prefix_hints
    assert second.openai_arguments == first.openai_arguments
