"""A config to tune, and runs whose outcome is a formula of the config: everything else of a sweep is real."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nat.data_models.optimizer import OptimizerRunConfig
from nat.runtime.loader import load_config

from nat_dynamo_plugin.sweep.config import DynamoSweepConfig
from nat_dynamo_plugin.sweep.holdout import Part
from nat_dynamo_plugin.sweep.outcome import RunResult
from nat_dynamo_plugin.sweep.study import Storage
from nat_dynamo_plugin.sweep.sweep import DynamoSweep

YAML = """\
# A comment at the top.
llms:
  dynamo:
    _type: dynamo
    base_url: http://localhost:1/v1
    model_name: "m"   # quoted
    api_key: ${SWEEP_TEST_KEY}
    prefix_total_requests: 10  # calls of a question
    prefix_osl: MEDIUM
    optimizable_params: [prefix_total_requests, prefix_osl, prefix_iat]

eval:
  evaluators:
    latency: {_type: dynamo_question_latency}
    reuse: {_type: dynamo_kv_reuse}

optimizer:
  output_path: OUT
  reps_per_param_set: 2
  eval_metrics:
    latency: {evaluator_name: latency, direction: minimize}
  numeric:
    _type: dynamo_sweep
    n_trials: 8
    final_rounds: 3
    seed: 7
"""
KEY = "sk-not-for-any-file"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_TEST_KEY", KEY)


def noise(*parts: Any) -> float:
    """A number from 0.98 to 1.02 that depends on the parts alone."""
    return 0.98 + 0.04 * int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16) / 2**32


def latency_of(llm: Any) -> float:
    """One request in all is bad, and so is a long output."""
    bad = 1.5 if llm.prefix_total_requests == 1 else 1.0
    return bad * {"LOW": 1.0, "MEDIUM": 1.2, "HIGH": 1.6}[str(llm.prefix_osl)]


class Runs:
    """Stands for `run_once`, and remembers what it was asked.

    Attributes:
        seen: the tuned values and the label of each run (its salt without what is unique), in order.
        salts: of each run.
        log: also written here, a line a run, for other processes to read.
        parts: the part of the workload that each run was of, in order.
        on_run: is called with the number of the run before it, may raise.
    """

    def __init__(self, log: Path | None = None, *, flat: bool = False, questions: int = 12) -> None:
        self.questions = [f"q{k}" for k in range(questions)]
        self.seen: list[tuple[Any, ...]] = []
        self.salts: list[str] = []
        self.parts: list[Part] = []
        self.log = log
        self.flat = flat
        self.on_run: Callable[[int, Any], None] = lambda number, llm: None

    async def __call__(
        self, config: Any, objectives: Any, *, salt: str, partial: Any = None, **options: Any
    ) -> RunResult:
        llm = config.llms["dynamo"]
        self.salts.append(salt)
        salt = salt.rpartition("-")[0]
        said = (llm.prefix_total_requests, str(llm.prefix_osl), str(llm.prefix_iat), salt)
        self.on_run(len(self.seen), llm)
        self.seen.append(said)
        self.parts.append(options["part"])
        await asyncio.sleep(0)
        base = 1.0 if self.flat else latency_of(llm)
        chosen = options["part"].chosen(self.questions)
        times = {q: base * (1 + k) * noise(salt, q) for k, q in enumerate(self.questions) if q in chosen}
        samples = {
            "latency": {q: [(t, 1.0)] for q, t in times.items()},
            "reuse": {q: [(80.0 / base, 100.0)] for q in times},
        }
        values = {"latency": sum(times.values()) / len(times), "reuse": 0.8 / base}
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(json.dumps(said) + "\n")
        names = {o.name for o in objectives}
        return RunResult(
            values={n: v for n, v in values.items() if n in names},
            samples={n: s for n, s in samples.items() if n in names},
            calls=24,
            server_calls=24,
            seconds=0.1,
            others={n: v for n, v in values.items() if n not in names},
        )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the config with replacements, and return the file."""

    def do(*replacements: tuple[str, str], name: str = "config.yml") -> Path:
        text = YAML.replace("OUT", str(tmp_path / "out"))
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / name
        file.write_text(text)
        return file

    return do


async def sweep(file: Path, runs: Any) -> tuple[Any, dict[str, Any], int]:
    """What `nat optimize` does with a config file."""
    from nat.plugins.config_optimizer.optimizable_utils import walk_optimizables

    config = load_config(file)
    numeric = config.optimizer.numeric
    assert isinstance(numeric, DynamoSweepConfig)
    return await DynamoSweep(numeric, run_one=runs).run(
        base_cfg=config,
        full_space=walk_optimizables(config),
        optimizer_config=config.optimizer,
        opt_run_config=OptimizerRunConfig(config_file=file, dataset=None),
    )


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    made = Storage(f"sqlite:///{tmp_path / 'study.db'}")
    yield made
    made.close()
