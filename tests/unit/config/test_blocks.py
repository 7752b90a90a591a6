"""Blocks and flat names: what is written in either way is one config, and stays one through a dump."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from nat.plugins.config_optimizer.update_helpers import apply_suggestions
from nat.runtime.loader import load_config
from pydantic import BaseModel, ValidationError

from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.config.model import DynamoModelConfig, names, other_names
from nat_dynamo_plugin.question.hints import IAT, OSL, TOTAL_REQUESTS, DynamoHints, PrefixLevel


def config(**fields: Any) -> DynamoModelConfig:
    return DynamoModelConfig(**{"model_name": "m", **fields})


FLAT = [
    ("max_active_prefixes", "admission", "max_active_prefixes", 7),
    ("prefix_idle", "admission", "idle", 7.5),
    ("prefix_max_wait", "admission", "max_wait", 7.5),
    ("max_retries", "retry", "max_retries", 7),
    ("retry_on_status_codes", "retry", "on_status", [503]),
    ("retry_on_errors", "retry", "on_errors", ["steam"]),
    ("connect_timeout", "connection", "connect_timeout", 7.5),
    ("request_timeout", "connection", "read_timeout", 7.5),
    ("pool_timeout", "connection", "pool_timeout", 7.5),
    ("max_connections", "connection", "max_connections", 7),
    ("http2", "connection", "http2", True),
    ("verify_ssl", "connection", "verify_ssl", False),
]


def around(flat: str) -> dict[str, Any]:
    """What has to stand beside a field for it to act."""
    return {"max_active_prefixes": 4} if flat in ("prefix_idle", "prefix_max_wait") else {}


@pytest.mark.parametrize(("flat", "block", "field", "value"), FLAT)
def test_a_flat_name_is_the_blocks_field(flat: str, block: str, field: str, value: Any) -> None:
    limit = around(flat)
    one = config(**{flat: value}, **limit)
    other = config(**{block: {field: value, **limit}})
    assert one == other
    assert getattr(getattr(one, block), field) == value
    if flat in DynamoModelConfig.model_fields:  # what NAT's code reads
        assert getattr(one, flat) == getattr(other, flat) == value
    assert {flat, f"{block}.{field}"} == {flat, *other_names(flat)} | {
        f"{block}.{field}",
        *other_names(f"{block}.{field}"),
    }
    with pytest.raises(ValidationError, match=rf"{flat} and {block}\.{field} are two names of one field"):
        config(**{flat: value, block: {field: value}})


def test_a_flat_name_and_another_field_of_its_block_go_together() -> None:
    made = config(max_active_prefixes=7, admission={"idle": 5}, request_timeout=4, connection={"http2": True})
    assert (made.admission.max_active_prefixes, made.admission.idle) == (7, 5)
    assert (made.connection.read_timeout, made.connection.http2) == (4, True)


def test_a_block_can_be_an_object() -> None:
    made = config(connection=type(config().connection)(http2=True), request_timeout=4)
    assert (made.connection.read_timeout, made.connection.http2) == (4, True)


@pytest.mark.parametrize("block", ["admission", "retry", "connection"])
@pytest.mark.parametrize("value", [5, "auto", ["x"]])
def test_a_block_that_is_none_is_refused(block: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=block):
        config(**{block: value}, max_active_prefixes=4, max_retries=1, http2=False)


@pytest.mark.parametrize(("path", "others"), [("num_retries", []), ("prefix_osl", ["nvext_prefix_osl"]), ("local", [])])
def test_other_names(path: str, others: list[str]) -> None:
    assert other_names(path) == others


def models() -> list[tuple[str, type[BaseModel]]]:
    return [("", DynamoModelConfig), *names().blocks.items()]


@pytest.mark.parametrize(("block", "model"), models())
def test_every_field_says_what_it_is_its_unit_and_its_default(block: str, model: type[BaseModel]) -> None:
    ours = (
        DynamoModelConfig.get_dynamo_field_names() | {"max_tokens"}
        if model is DynamoModelConfig
        else model.model_fields
    )
    for name, field in model.model_fields.items():
        if name not in ours:
            continue
        text = field.description or ""
        assert text.endswith("."), (block, name)
        if isinstance(field.default, float) and "share" not in text and "times faster" not in text:
            assert re.search(r"\b[Ss]econds\b|Same as", text), (block, name)
        if (
            model is not LocalDynamoConfig
            and isinstance(field.default, int | float | PrefixLevel)
            and not field.exclude
        ):
            value = field.default
            if isinstance(value, bool):
                default = str(value).lower()
            else:
                default = f"{value:.15g}" if isinstance(value, int | float) else value.value
            assert re.search(rf"default:? {default}\b|\b{default} \(the default\)", text), (block, name, default)


def test_what_a_hint_counts_is_said_in_the_words_of_hints() -> None:
    fields = DynamoModelConfig.model_fields
    for name, words in (("prefix_total_requests", TOTAL_REQUESTS), ("prefix_osl", OSL), ("prefix_iat", IAT)):
        assert (fields[name].description or "").lower().startswith(words.lower()), name
    scope = " ".join((DynamoHints.scope.__doc__ or "").split())
    assert TOTAL_REQUESTS.replace("one", "each", 1).partition(" (")[0] in scope and OSL in scope and IAT in scope


seconds = st.floats(min_value=0.001, max_value=1e6)
levels = st.sampled_from(["low", "MEDIUM", "auto", PrefixLevel.HIGH]) | st.integers(1, 10**6)
statuses = st.lists(st.sampled_from([429, "5xx", "50x", "4*", 418]))
configs = st.fixed_dictionaries(
    {"model_name": st.just("m")},
    optional={
        "prefix_total_requests": st.integers(1, 50) | st.just("auto"),
        "prefix_osl": levels,
        "prefix_iat": levels,
        "prefix_wire": st.lists(st.sampled_from(["dynamo", "prefix_headers", "annotations"]), unique=True),
        "prefix_predictions": st.just("trie.json"),
        "prefix_learned": st.just("learned.json"),
        "max_tokens": st.none() | st.integers(1, 10**6),
        "frequency_penalty": st.just(1),
        "api_key": st.just("sk-1234567890"),
        "cache_salt": st.just("salt"),
        "layers": st.just(["json:JSONDecoder", {"json:JSONEncoder": {"indent": 2}}]),
        "retry": st.fixed_dictionaries({}, optional={"on_status": statuses, "on_errors": st.none() | st.just([])}),
        "max_retries": st.integers(0, 99),
        "num_retries": st.none() | st.integers(1, 99),
        "do_auto_retry": st.booleans(),
        "connection": st.fixed_dictionaries(
            {}, optional={"connect_timeout": seconds, "http2": st.booleans(), "trust_env": st.booleans()}
        ),
        "request_timeout": seconds,
        "verify_ssl": st.booleans(),
        "max_connections": st.integers(1, 10**6),
        "admission": st.fixed_dictionaries(
            {"max_active_prefixes": st.integers(1, 99) | st.just("auto")}, optional={"max_wait": seconds}
        ),
        "prefix_idle": st.just(30),
    },
)
targets = st.fixed_dictionaries({"base_url": st.none() | st.just("http://ann:pw@h/v1")}) | st.fixed_dictionaries(
    {"local": st.just({"workers": 3, "log_dir": "logs", "env": {"A": "b"}})}
)


@settings(deadline=None)
@given(fields=configs, target=targets)
def test_a_dumped_config_comes_back_the_same(fields: dict[str, Any], target: dict[str, Any]) -> None:
    # NAT's optimizer dumps and validates again, after which every field counts as set.
    first = config(**fields, **target)
    dumps: list[dict[str, Any]] = [
        first.model_dump(mode="python"),
        first.model_dump(mode="python", by_alias=True),
        first.model_dump(mode="json"),
        first.model_dump(exclude_unset=True),
        yaml.safe_load(yaml.safe_dump(first.model_dump(mode="python", exclude={"api_type"}))),
    ]
    for second in (
        *map(DynamoModelConfig.model_validate, dumps),
        DynamoModelConfig.model_validate_json(first.model_dump_json()),
    ):
        assert second == first
        assert second.model_dump() == first.model_dump()
        assert second.prefix_hints == first.prefix_hints
        assert second.openai_arguments == first.openai_arguments
        for flat in names().flat:
            assert getattr(second, flat, None) == getattr(first, flat, None)


@pytest.mark.parametrize(
    "block",
    [
        "max_active_prefixes: auto\n    request_timeout: 5",
        "admission: {max_active_prefixes: auto}\n    connection: {read_timeout: 5}",
    ],
)
def test_a_trial_of_nats_optimizer_changes_what_it_tunes_and_nothing_else(tmp_path: Path, block: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(
        f"llms:\n  d:\n    _type: dynamo\n    model_name: m\n    num_retries: 3\n    {block}\n"
        "workflow: {_type: current_datetime}\n"
    )
    loaded = load_config(file)
    trial = apply_suggestions(loaded, {"llms.d.prefix_osl": "LOW", "llms.d.admission.max_active_prefixes": 4})
    before, after = loaded.llms["d"], trial.llms["d"]
    assert isinstance(before, DynamoModelConfig) and isinstance(after, DynamoModelConfig)
    assert after.model_copy(update={"prefix_osl": before.prefix_osl, "admission": before.admission}) == before
    assert (after.prefix_osl, after.admission.max_active_prefixes, after.retry.max_retries) == ("LOW", 4, 2)
    assert after.connection.read_timeout == 5


@pytest.mark.parametrize("where", [{"prefix_learned": 5}, {"record": {"file": 5}}, {"record": {"file": ["a"]}}])
def test_a_file_that_is_none_is_an_error_that_names_its_field(where: dict[str, Any]) -> None:
    """Pydantic's error about paths is none of its core's, and so can not be raised again by its name."""
    with pytest.raises(ValidationError, match=r"(prefix_learned|record\.file)\n.*path"):
        DynamoModelConfig(model_name="m", base_url="http://localhost:8000/v1", **where)
