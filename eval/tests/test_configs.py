"""The shipped configs, read as NAT reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from nat.data_models.config import Config
from nat.utils.data_models.schema_validator import validate_schema

import nat_dynamo_bfcl.register
import nat_dynamo_plugin.register  # noqa: F401
from nat_dynamo_bfcl.dataset import BfclMultiTurnConfig
from nat_dynamo_plugin.local.answers import load_answers

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = {"eval_bfcl.yml": 24, "eval_bfcl_full.yml": 200, "eval_bfcl_no_prefix.yml": 200}


def read(name: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
    return data


@pytest.mark.parametrize("name", NAMES)
def test_the_config_is_valid_and_names_what_exists(name: str) -> None:
    config = validate_schema(read(name), Config)
    dataset = config.eval.general.dataset
    assert isinstance(dataset, BfclMultiTurnConfig)
    load, arguments = dataset.parser()
    assert len(load(dataset.file_path, **arguments)) == NAMES[name]
    assert isinstance(config.workflow, nat_dynamo_bfcl.register.BfclAgentConfig)
    assert config.workflow.llm_name in config.llms
    assert set(config.workflow.middleware) <= set(config.middleware)
    assert len(config.eval.evaluators) == 5
    assert load_answers(config.llms["dynamo"].local.scripted_answers).keys


def test_results_go_to_folders_of_their_own() -> None:
    folders = {read(name)["eval"]["general"]["output"]["dir"] for name in NAMES}
    assert len(folders) == len(NAMES)
    assert all(folder.startswith("eval/results/") for folder in folders)


def test_with_and_without_prefix_differ_in_nothing_else() -> None:
    full, without = read("eval_bfcl_full.yml"), read("eval_bfcl_no_prefix.yml")
    assert without["llms"]["dynamo"].pop("prefix_template") is None
    assert without["llms"]["dynamo"].pop("prefix_wire") == ["telemetry"]
    for field in ("prefix_template", "prefix_total_requests", "prefix_osl", "prefix_iat"):
        del full["llms"]["dynamo"][field]
    del full["eval"]["general"]["output"]["dir"], without["eval"]["general"]["output"]["dir"]
    assert full == without


def test_a_cluster_needs_only_another_address() -> None:
    data = read("eval_bfcl.yml")
    del data["llms"]["dynamo"]["local"]
    data["llms"]["dynamo"] |= {"base_url": "http://my-dynamo-frontend:8000/v1", "model_name": "some-model"}
    assert validate_schema(data, Config).llms["dynamo"].base_url == "http://my-dynamo-frontend:8000/v1"
