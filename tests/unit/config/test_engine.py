"""What `local:` takes and refuses of an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nat_dynamo_plugin.config.engine import RandomModel
from nat_dynamo_plugin.config.local import LocalDynamoConfig


@pytest.mark.parametrize(("engine", "values"), [("mocker", (8192, 16, 8192, 60.0)), ("vllm", (4096, 32, 2048, 900.0))])
def test_defaults_are_the_engines(engine: Any, values: tuple[float, ...]) -> None:
    made = LocalDynamoConfig(engine=engine)
    assert (made.kv_blocks, made.block_size, made.max_num_batched_tokens, made.startup_timeout_s) == values
    given = LocalDynamoConfig(engine=engine, kv_blocks=64, block_size=64, startup_timeout_s=5)
    assert (given.kv_blocks, given.block_size, given.startup_timeout_s) == (64, 64, 5.0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"engine": "vllm", "speedup": 10}, "speedup is for engine: mocker"),
        ({"engine": "vllm", "block_size": 16}, "block_size=16: vLLM on a CPU takes multiples of 32"),
        ({"engine": "vllm", "model": "no/such/folder"}, "no config.json"),
        ({"engine": "vllm", "worker_args": ["--kv-events-config={}"]}, "is set by the package"),
        ({"engine": "vllm", "worker_args": ["--max-num-seqs", "3"]}, "is set by the package"),
        ({"engine": "vllm", "model": {"hidden": 100}}, "multiple of 64"),
        ({"model": {"layers": 2}}, "model is for engine: vllm; the engine here is mocker"),
        ({"engine_python": "python"}, "engine_python is for engine: vllm"),
        ({"worker_args": ["--speedup-ratio", "3"]}, "is set by the package"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LocalDynamoConfig.model_validate(fields)


@pytest.mark.parametrize("fields", [{}, {"engine": "vllm"}, {"engine": "vllm", "model": {"layers": 2}}])
def test_a_dumped_config_comes_back(fields: dict[str, Any]) -> None:
    made = LocalDynamoConfig.model_validate(fields)
    assert LocalDynamoConfig.model_validate(made.model_dump(mode="json")) == made


def test_flags_of_another_engine_are_not_ours() -> None:
    assert LocalDynamoConfig(engine="vllm", worker_args=["--seed", "1"]).worker_args == ["--seed", "1"]
    assert LocalDynamoConfig(worker_args=["--model", "x"]).worker_args == ["--model", "x"]


def test_a_model_is_a_size_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    real = LocalDynamoConfig(engine="vllm", model=tmp_path)
    assert real.model == tmp_path and not real.says_nonsense
    assert LocalDynamoConfig(engine="vllm", model={"layers": 2}).model == RandomModel(layers=2)
    assert LocalDynamoConfig(engine="vllm").says_nonsense
    assert not LocalDynamoConfig(engine="vllm", scripted_answers="a.jsonl").says_nonsense
