"""What a sweep does about failures, and what starting it again measures and leaves alone."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nat_dynamo_plugin.sweep import runner
from nat_dynamo_plugin.sweep.outcome import RunFailed
from nat_dynamo_plugin.sweep.run import Stopped
from nat_dynamo_plugin.sweep.runner import ServerDown
from nat_dynamo_plugin.sweep.search import SweepError

from .conftest import Runs, sweep
from .test_sweep import rows, searched

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "PAUSE_S", 0.0)


def down(_number: int, _llm: Any) -> None:
    raise RunFailed("9 of 9 LLM calls failed, the first with: Connection refused", transient=True)


def states(tmp_path: Path) -> Counter[str]:
    return Counter(row["state"] for row in rows(tmp_path / "out"))


async def test_an_outage_burns_no_trials_and_the_rest_follows(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, runs = write(("n_trials: 8", "n_trials: 24\n    pruner: none")), Runs()
    runs.on_run = lambda number, llm: down(number, llm) if len(runs.seen) >= 12 else None
    with pytest.raises(ServerDown, match=r"current config can not be measured: .*Connection refused"):
        await sweep(file, runs)
    assert states(tmp_path) == {"done": 4, "waiting": 20}
    assert "Not proven" in capsys.readouterr().out  # what is there is reported
    rest = Runs()
    await sweep(file, rest)
    assert states(tmp_path) == {"done": 24}
    assert not {one[3] for one in runs.seen} & {one[3] for one in rest.seen}


async def test_an_outage_in_the_finals_burns_none_of_them(write: Write, tmp_path: Path) -> None:
    file, runs = write(), Runs()
    runs.on_run = lambda number, llm: down(number, llm) if len(runs.seen) >= 16 + 4 else None
    with pytest.raises(ServerDown):
        await sweep(file, runs)
    rest = Runs()
    await sweep(file, rest)
    assert len(rest.seen) == 5


async def test_what_failed_once_by_the_server_is_tried_again(write: Write, tmp_path: Path) -> None:
    runs, failed = Runs(), []

    def once(number: int, llm: Any) -> None:
        if number == 5 and not failed:
            failed.append(number)
            down(number, llm)

    runs.on_run = once
    await sweep(write(("n_trials: 8", "n_trials: 8\n    pruner: none")), runs)
    assert failed and states(tmp_path) == {"done": 8}
    assert len(runs.seen) == 16 + 9
    assert "probe" not in {one[3] for one in runs.seen}


async def test_a_config_that_alone_takes_the_server_down_is_failed(write: Write, tmp_path: Path) -> None:
    runs = Runs()
    runs.on_run = lambda number, llm: down(number, llm) if str(llm.prefix_osl) == "LOW" else None
    await sweep(write(("n_trials: 8", "n_trials: 8\n    pruner: none")), runs)
    found = rows(tmp_path / "out")
    assert {row["prefix_osl"] for row in found if row["state"] == "failed"} == {"LOW"}
    assert all(row["state"] == "done" for row in found if row["prefix_osl"] != "LOW")
    # The current config was asked, and answered, each time.
    assert sum(one[3] == "probe" for one in runs.seen) == sum(row["state"] == "failed" for row in found)


async def test_many_failures_in_a_row_ask_whether_the_server_is_the_cause(write: Write, tmp_path: Path) -> None:
    runs = Runs()

    def broken(number: int, _llm: Any) -> None:
        if len(runs.seen) >= 8:
            raise RunFailed("the workflow failed on a question")

    runs.on_run = broken
    file = write(("n_trials: 8", "n_trials: 24\n    pruner: none"))
    with pytest.raises(ServerDown, match="the workflow failed"):
        await sweep(file, runs)
    assert states(tmp_path) == {"done": 4, "failed": 2, "waiting": 18}
    rest = Runs()
    await sweep(file, rest)
    assert states(tmp_path) == {"done": 24}
    assert not any(row["problem"] for row in rows(tmp_path / "out"))


async def test_failures_that_are_the_configs_own_stop_nothing(write: Write, tmp_path: Path) -> None:
    runs = Runs()

    def refuse(_number: int, llm: Any) -> None:
        if llm.prefix_total_requests != 10:
            raise RunFailed("it can not be so")

    runs.on_run = refuse
    await sweep(write(("n_trials: 8", "n_trials: 12\n    pruner: none")), runs)
    assert states(tmp_path)["failed"] >= 6 and states(tmp_path)["waiting"] == 0


async def test_failures_between_successes_are_none_in_a_row(write: Write, tmp_path: Path) -> None:
    runs, order = Runs(), []

    def fail(_number: int, llm: Any) -> None:
        bad = str(llm.prefix_osl) == "LOW"
        order.append("f" if bad else ".")
        if bad:
            raise RunFailed("it can not be so")

    runs.on_run = fail
    one_by_one = ("n_trials: 8", "n_trials: 12\n    block: 1\n    final_rounds: 0"), ("    final_rounds: 3\n", "")
    await sweep(write(*one_by_one, ("reps_per_param_set: 2", "reps_per_param_set: 1")), runs)
    assert "".join(order).count("f") >= 3 and "fff" not in "".join(order)
    assert "probe" not in {one[3] for one in runs.seen}


async def test_what_is_stopped_early_has_answered(write: Write, tmp_path: Path) -> None:
    runs = Runs()

    def fail_or_stop(_number: int, llm: Any) -> None:
        if llm.prefix_total_requests != 10:
            raise RunFailed("it can not be so") if str(llm.prefix_osl) == "LOW" else Stopped

    runs.on_run = fail_or_stop
    one_by_one = ("n_trials: 8", "n_trials: 12\n    block: 1"), ("reps_per_param_set: 2", "reps_per_param_set: 1")
    await sweep(write(*one_by_one), runs)
    found = [row["state"] for row in rows(tmp_path / "out")]
    assert found.count("failed") >= 3 and "stopped early" in found
    assert "probe" not in {one[3] for one in runs.seen}


async def test_an_error_that_the_run_itself_raises_is_read_for_its_cause(write: Write) -> None:
    runs = Runs()

    class ConnectError(Exception):
        pass

    def refused(_number: int, _llm: Any) -> None:
        if len(runs.seen) >= 8:
            raise ConnectError("refused")

    runs.on_run = refused
    with pytest.raises(ServerDown, match="ConnectError: refused"):
        await sweep(write(), runs)


async def test_a_current_config_that_fails_by_itself_is_named(write: Write) -> None:
    runs = Runs()

    def fail(_number: int, llm: Any) -> None:
        if llm.prefix_total_requests == 10:
            raise RunFailed("no LLM call went through Dynamo")

    runs.on_run = fail
    with pytest.raises(SweepError, match="no LLM call went through Dynamo") as caught:
        await sweep(write(), runs)
    assert not isinstance(caught.value, ServerDown)


async def test_fewer_trials_are_fewer_when_it_goes_on(write: Write, tmp_path: Path) -> None:
    def stop(number: int, _llm: Any) -> None:
        if number == 8:
            raise asyncio.CancelledError

    runs = Runs()
    runs.on_run = stop
    with pytest.raises(asyncio.CancelledError):
        await sweep(write(("n_trials: 8", "n_trials: 16\n    pruner: none")), runs)
    fewer = Runs()
    await sweep(write(("n_trials: 8", "n_trials: 6\n    pruner: none")), fewer)
    assert [row["trial"] for row in rows(tmp_path / "out")] == [str(k) for k in range(6)]
    assert states(tmp_path) == {"done": 6}
    assert len(searched(fewer.seen)) == 2 * 2
    # The others are still in the study.
    more = Runs()
    await sweep(write(("n_trials: 8", "n_trials: 16\n    pruner: none")), more)
    assert states(tmp_path) == {"done": 16}
    assert len(searched(more.seen)) == 10 * 2


async def test_finalists_are_of_the_trials_that_count(write: Write, tmp_path: Path) -> None:
    two = ("direction: minimize}", "direction: minimize}\n    reuse: {evaluator_name: reuse, direction: maximize}")
    await sweep(write(two, ("n_trials: 8", "n_trials: 16")), Runs())
    await sweep(write(two, ("n_trials: 8", "n_trials: 2")), Runs())
    found = rows(tmp_path / "out")
    assert [row["trial"] for row in found] == ["0", "1"]
    assert any(row["pareto"] == "True" for row in found)


async def test_no_salt_comes_again_after_the_study_is_deleted(write: Write, tmp_path: Path) -> None:
    salts = []
    for _ in range(2):
        runs = Runs()
        await sweep(write(), runs)
        salts += runs.salts
        shutil.rmtree(tmp_path / "out")
    assert len(salts) == len(set(salts)) == 2 * 25


async def test_no_salt_comes_again_after_an_aborted_run(write: Write) -> None:
    salts: list[str] = []

    class Aborted(Runs):
        async def __call__(self, config: Any, objectives: Any, *, salt: str, **more: Any) -> Any:
            salts.append(salt)
            if len(salts) == 3:
                raise asyncio.CancelledError
            return await super().__call__(config, objectives, salt=salt, **more)

    with pytest.raises(asyncio.CancelledError):
        await sweep(write(), Aborted())
    await sweep(write(), Aborted())
    assert len(salts) == len(set(salts)) == 25 + 1


async def test_a_salt_can_be_a_header_whatever_the_study_is_called(write: Write) -> None:
    runs = Runs()
    await sweep(write(("seed: 7", f"seed: 7\n    study_name: '{'x' * 200} größer als'")), runs)
    assert all(salt.isascii() and " " not in salt and len(salt) <= 128 for salt in runs.salts)


async def test_an_edit_in_mid_sweep_changes_nothing_that_is_measured(write: Write, tmp_path: Path) -> None:
    urls = set()

    class Edited(Runs):
        async def __call__(self, config: Any, *args: Any, **more: Any) -> Any:
            if len(self.seen) == 3:
                write(("localhost:1", "localhost:2"))
            urls.add(config.llms["dynamo"].base_url)
            return await super().__call__(config, *args, **more)

    await sweep(write(), Edited())
    assert urls == {"http://localhost:1/v1"}
    assert "http://localhost:1/v1" in (tmp_path / "out" / "optimized_config.yml").read_text()
