"""Sweeps on the embedded Dynamo: every trial really asks, and what the server counted is what was asked."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import optuna
import pytest
import yaml
from nat.data_models.evaluate_runtime import EvaluationRunConfig
from nat.data_models.optimizer import OptimizerRunConfig
from nat.plugins.config_optimizer.optimizer_runtime import optimize_config
from nat.plugins.eval.runtime.evaluate import EvaluationRun

from nat_dynamo_plugin.http.httpx_shell import HttpxShell
from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig
from nat_dynamo_plugin.sweep.results import questions_of
from nat_dynamo_plugin.sweep.search import SweepError

pytestmark = pytest.mark.timeout(1200)

CONFIGS = Path(__file__).parents[2] / "configs"
QUESTIONS = ["multi_turn_base_0", "multi_turn_base_1"]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """The shipped config, small: two questions, fast engines; and with changes by dotted path."""

    def do(name: str = "optimize_bfcl.yml", **changes: Any) -> Path:
        small = {
            "llms.dynamo.local.workers": 2,
            "llms.dynamo.local.speedup": 50,
            "llms.dynamo.optimizable_params": ["prefix_total_requests", "prefix_iat"],
            "middleware.arrivals.rate": 50,
            "eval.general.dataset": {"_type": "bfcl_multi_turn", "ids": QUESTIONS},
            "eval.general.output.dir": str(tmp_path / "eval"),
            "optimizer.output_path": str(tmp_path / "out"),
            "optimizer.numeric.n_trials": 3,
            "optimizer.numeric.finalists": 1,
            "optimizer.numeric.final_rounds": 3,
            "optimizer.numeric.pruner": "none",
        }
        data: dict[str, Any] = {"base": str(CONFIGS / name)}
        for path, value in {**small, **changes}.items():
            *parts, last = path.split(".")
            holder = data
            for part in parts:
                holder = holder.setdefault(part, {})
            holder[last] = value
        file = tmp_path / "config.yml"
        file.write_text(yaml.safe_dump(data))
        return file

    return do


async def optimize(file: Path) -> Any:
    return await optimize_config(OptimizerRunConfig(config_file=file, dataset=None))


async def test_the_server_counts_every_call_of_every_trial(write: Callable[..., Path], tmp_path: Path) -> None:
    await optimize(write("optimize_bad_start.yml", **{"optimizer.reps_per_param_set": 2}))
    with (tmp_path / "out" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["done"] * 3
    assert (rows[0]["prefix_total_requests"], rows[0]["prefix_iat"]) == ("1", "LOW")
    calls = {int(row["calls"]) for row in rows}
    assert len(calls) == 1 and calls.pop() > 2 * 2 * len(QUESTIONS)
    assert all(row["server_calls"] == row["calls"] for row in rows)
    # What was written runs as it is.
    output = await EvaluationRun(
        EvaluationRunConfig(config_file=tmp_path / "out" / "optimized_config.yml", write_output=False)
    ).run_and_evaluate()
    scores = {name: result.average_score for name, result in output.evaluation_results}
    assert scores["question_latency"] > 0 and 0 < scores["kv_reuse"] < 1


async def test_a_cluster_is_asked_with_a_salt_for_each_run(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    salts: set[str | None] = set()
    send = HttpxShell.handle_async_request

    async def noted(self: HttpxShell, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/chat/completions"):
            salts.add(request.headers.get("x-tenant-id"))
        response: httpx.Response = await send(self, request)
        return response

    monkeypatch.setattr(HttpxShell, "handle_async_request", noted)
    async with LocalDynamo(LocalDynamoConfig(workers=2, speedup=100), model_name="m") as cluster:
        here = {"llms.dynamo.local": None, "llms.dynamo.base_url": cluster.base_url, "llms.dynamo.model_name": "m"}
        await optimize(write(**here, **{"llms.dynamo.max_tokens": 8, "optimizer.numeric.n_trials": 2}))
    with (tmp_path / "out" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # What a cluster counts is not this sweep's alone.
    assert [(row["state"], row["server_calls"]) for row in rows] == [("done", "")] * 2
    # Two trials; one finalist and the current config in three rounds.
    assert len(salts) == 2 + 6 and None not in salts


async def test_the_finals_ask_what_the_search_has_not(write: Callable[..., Path], tmp_path: Path) -> None:
    dataset = {"_type": "bfcl_multi_turn", "limit": 20, "seed": 1}
    async with LocalDynamo(LocalDynamoConfig(workers=2, speedup=100), model_name="m") as cluster:
        here = {"llms.dynamo.local": None, "llms.dynamo.base_url": cluster.base_url, "llms.dynamo.model_name": "m"}
        few = {"llms.dynamo.max_tokens": 8, "optimizer.numeric.n_trials": 2, "eval.general.dataset": dataset}
        await optimize(write(**here, **few))
    asked: dict[bool, set[str]] = {False: set(), True: set()}
    url = f"sqlite:///{tmp_path / 'out' / 'study.db'}"
    for name in optuna.get_all_study_names(url):
        for trial in optuna.load_study(study_name=name, storage=url).trials:
            asked["finals" in name] |= questions_of(trial)
    assert (len(asked[False]), len(asked[True])) == (10, 10)
    assert not asked[False] & asked[True]


async def test_a_server_that_is_not_there_is_no_fast_server(write: Callable[..., Path]) -> None:
    dead = {
        "llms.dynamo.local": None,
        "llms.dynamo.base_url": "http://127.0.0.1:9/v1",
        "llms.dynamo.model_name": "m",
        "llms.dynamo.do_auto_retry": False,
    }
    with pytest.raises(SweepError, match="LLM calls failed"):
        await optimize(write(**dead))


@pytest.mark.parametrize("alive", [True, False])
async def test_nats_own_optimizer(write: Callable[..., Path], tmp_path: Path, alive: bool) -> None:
    own = {"optimizer.numeric": {"_type": "numeric", "n_trials": 2}, "optimizer.reps_per_param_set": 2}
    dead = {
        "llms.dynamo.local": None,
        "llms.dynamo.base_url": "http://127.0.0.1:9/v1",
        "llms.dynamo.model_name": "m",
        "llms.dynamo.do_auto_retry": False,
    }
    file = write(**own, **({} if alive else dead))
    # A config that has a base merges; what dynamo_sweep has and NAT's own has not is no harm to it.
    if alive:
        tuned = await optimize(file)
        assert tuned.llms["dynamo"].prefix_iat in ("LOW", "MEDIUM", "HIGH")
        with (tmp_path / "out" / "trials_dataframe_params.csv").open(newline="") as table:
            rows = list(csv.DictReader(table))
        assert [row["state"] for row in rows] == ["COMPLETE"] * 2
        assert all(float(row["value"]) > 0 for row in rows)
    else:
        with pytest.raises(ValueError, match="no Pareto-optimal trials"):
            await optimize(file)
