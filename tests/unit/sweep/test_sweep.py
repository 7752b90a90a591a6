"""A whole sweep with runs by formula: order, resumption, sharing, failures, verdict, files."""

from __future__ import annotations

import asyncio
import csv
import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from nat.data_models.optimizer import OptimizerRunConfig
from nat.plugins.config_optimizer.optimizer_runtime import optimize_config
from nat.runtime.loader import load_config

from nat_dynamo_plugin.sweep.outcome import RunFailed
from nat_dynamo_plugin.sweep.run import Stopped
from nat_dynamo_plugin.sweep.search import SweepError

from .conftest import KEY, Runs, sweep

Write = Callable[..., Path]
BAD = ("prefix_total_requests: 10", "prefix_total_requests: 1"), ("prefix_osl: MEDIUM", "prefix_osl: HIGH")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def searched(seen: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [one for one in seen if "finals" not in one[3]]


async def test_finds_what_is_better_and_proves_it(write: Write, tmp_path: Path) -> None:
    runs = Runs()
    _, best, trials = await sweep(write(*BAD), runs)
    assert trials == 8
    assert best["llms.dynamo.prefix_total_requests"] != 1
    table = rows(tmp_path / "out")
    assert [row["trial"] for row in table] == [str(k) for k in range(8)]
    assert (table[0]["prefix_total_requests"], table[0]["prefix_osl"]) == ("1", "HIGH")
    finalist = max((row for row in table if row["final_gain"]), key=lambda row: float(row["final_gain"]))
    assert float(finalist["final_gain_low"]) > 0.25
    assert float(finalist["final_latency_high"]) < float(table[0]["final_latency_low"])
    assert 'id="figure-importance"' in (tmp_path / "out" / "report.html").read_text()
    tuned = load_config(tmp_path / "out" / "optimized_config.yml")
    assert tuned.llms["dynamo"].prefix_total_requests == best["llms.dynamo.prefix_total_requests"]
    # Two repetitions of 8 trials; 2 finalists and the current config in 3 rounds.
    assert len(searched(runs.seen)) == sum(int(row["runs"]) for row in table)
    assert len(runs.seen) - len(searched(runs.seen)) == 9


async def test_from_a_config_that_nothing_beats_it_reports_no_gain(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write()
    _, best, _ = await sweep(file, Runs(flat=True))
    assert "Nothing beat the current config" in capsys.readouterr().out
    assert best["llms.dynamo.prefix_total_requests"] == 10
    assert (tmp_path / "out" / "optimized_config.yml").read_text() == file.read_text()
    # What made no difference is not important.
    assert 'id="figure-importance"' not in (tmp_path / "out" / "report.html").read_text()


async def test_the_same_seed_tries_the_same_in_the_same_order(write: Write, tmp_path: Path) -> None:
    orders = []
    for number in range(2):
        runs = Runs()
        await sweep(write(("/out", f"/out{number}"), name=f"{number}.yml"), runs)
        orders.append([one[:3] for one in searched(runs.seen)])
    assert orders[0] == orders[1]


async def test_repetitions_of_a_block_are_mixed(write: Write) -> None:
    runs = Runs()
    await sweep(write(("n_trials: 8", "n_trials: 8\n    pruner: none")), runs)
    first_block = [one[:3] for one in searched(runs.seen)][:8]
    # Each of the four trials once, then each once again, in another order.
    assert Counter(first_block[:4]) == Counter(first_block[4:])
    assert first_block[:4] != first_block[4:]


async def test_every_run_has_a_salt_of_its_own(write: Write) -> None:
    runs = Runs()
    await sweep(write(), runs)
    assert len(set(runs.salts)) == len(runs.seen)


async def test_a_finished_sweep_is_not_repeated(write: Write) -> None:
    file, runs = write(), Runs()
    first = await sweep(file, runs)
    again = Runs()
    assert (await sweep(file, again))[1] == first[1]
    assert again.seen == []


async def test_more_trials_go_on_from_fewer(write: Write) -> None:
    runs = Runs()
    await sweep(write(), runs)
    more = Runs()
    await sweep(write(("n_trials: 8", "n_trials: 12")), more)
    assert {one[:3] for one in searched(more.seen)}.isdisjoint({one[:3] for one in searched(runs.seen)})
    assert len({one[:3] for one in searched(more.seen)}) == 4


async def test_another_config_is_another_study(write: Write) -> None:
    await sweep(write(), Runs())
    other = Runs()
    await sweep(write(("prefix_osl: MEDIUM", "prefix_osl: LOW")), other)
    assert other.seen


async def test_a_named_study_of_another_config_is_refused(write: Write) -> None:
    named = ("seed: 7", "seed: 7\n    study_name: mine")
    await sweep(write(named), Runs())
    with pytest.raises(ValueError, match="study_name='mine'"):
        await sweep(write(named, ("prefix_osl: MEDIUM", "prefix_osl: LOW")), Runs())


async def test_ctrl_c_reports_what_is_there_and_the_rest_can_follow(write: Write, tmp_path: Path) -> None:
    file, runs = write(), Runs()

    def interrupt(number: int, _llm: Any) -> None:
        if number == 9:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    runs.on_run = interrupt
    with pytest.raises(asyncio.CancelledError):
        await sweep(file, runs)
    done = [row for row in rows(tmp_path / "out") if row["state"] == "done"]
    assert 0 < len(done) < 8
    assert (tmp_path / "out" / "report.html").exists()
    rest = Runs()
    await sweep(file, rest)
    assert all(row["state"] != "waiting" for row in rows(tmp_path / "out"))
    # The cancelled run is the only one that was begun twice.
    begun = Counter(one[3] for one in [*runs.seen, *rest.seen])
    assert sum(count - 1 for count in begun.values()) == 1


async def test_a_signal_ends_it_as_the_command_line_expects(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs()
    runs.on_run = lambda number, _llm: os.kill(os.getpid(), signal.SIGINT) if number == 9 else None
    # Where tests run in the background, SIGINT may be ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(click.Abort):
            await sweep(write(), runs)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(runs.seen) == 10
    assert "Not proven: the search saw" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists()


async def test_a_trial_whose_calls_fail_is_failed_and_never_best(write: Write, tmp_path: Path) -> None:
    runs = Runs()

    def fail(_number: int, llm: Any) -> None:
        if str(llm.prefix_osl) == "LOW":
            raise RunFailed(f"3 of 9 LLM calls failed with key {KEY}")

    runs.on_run = fail
    _, best, _ = await sweep(write(), runs)
    assert best["llms.dynamo.prefix_osl"] != "LOW"
    failed = [row for row in rows(tmp_path / "out") if row["state"] == "failed"]
    assert failed and all(row["prefix_osl"] == "LOW" and not row["latency"] for row in failed)
    assert "3 of 9 LLM calls failed with key ***" in failed[0]["problem"]


async def test_a_sweep_without_a_baseline_stops_and_says_why(write: Write) -> None:
    runs = Runs()

    def fail(_number: int, llm: Any) -> None:
        if llm.prefix_total_requests == 10:
            raise RunFailed("no LLM call went through Dynamo")

    runs.on_run = fail
    file = write()
    with pytest.raises(SweepError, match="current config can not be measured: no LLM call went through Dynamo"):
        await sweep(file, runs)
    # When it works again, so does the sweep.
    assert (await sweep(file, Runs()))[2] == 8


async def test_a_hopeless_trial_is_stopped_on_part_of_its_questions(write: Write, tmp_path: Path) -> None:
    class Watched(Runs):
        async def __call__(self, config: Any, objectives: Any, *, salt: str, partial: Any = None, **more: Any) -> Any:
            result = await super().__call__(config, objectives, salt=salt, **more)
            if partial is not None:
                done: dict[str, Any] = {}
                for number, (question, samples) in enumerate(result.of(objectives)[0].items(), start=1):
                    done[question] = samples
                    if partial([done], number / 12):
                        raise Stopped
            return result

    await sweep(write(("n_trials: 8", "n_trials: 24"), ("reps_per_param_set: 2", "reps_per_param_set: 1")), Watched())
    table = rows(tmp_path / "out")
    stopped = [row for row in table if row["state"] == "stopped early"]
    assert stopped
    # Never what is as good as the current config, and never the best.
    assert all(row["prefix_osl"] == "HIGH" or row["prefix_total_requests"] == "1" for row in stopped)


async def test_a_target_ends_the_search(write: Write, tmp_path: Path) -> None:
    await sweep(write(*BAD, ("reps_per_param_set: 2", "reps_per_param_set: 1\n  target: 12.0")), Runs())
    assert any(row["state"] == "waiting" for row in rows(tmp_path / "out"))


async def test_a_time_budget_keeps_time_for_the_finals(write: Write, tmp_path: Path) -> None:
    runs = Runs()
    await sweep(write(("seed: 7", "seed: 7\n    time_budget_s: 0.5")), runs)
    states = Counter(row["state"] for row in rows(tmp_path / "out"))
    assert states["waiting"] == 4 and states["done"] == 4
    assert any("finals" in one[3] for one in runs.seen)


TWO = (
    "    latency: {evaluator_name: latency, direction: minimize}",
    "    latency: {evaluator_name: latency, direction: minimize, weight: 3}\n"
    "    reuse: {evaluator_name: reuse, direction: maximize}",
)


@pytest.mark.parametrize("objective", ["pareto", "weighted"])
@pytest.mark.parametrize("sampler", ["qmc", "tpe", "nsga2"])
async def test_two_objectives(write: Write, tmp_path: Path, objective: str, sampler: str) -> None:
    chosen = ("seed: 7", f"seed: 7\n    objective: {objective}\n    sampler: {sampler}\n    n_trials: 10")
    _, best, _ = await sweep(write(*BAD, TWO, chosen, ("    n_trials: 8\n", "")), Runs())
    table = rows(tmp_path / "out")
    assert len(table) == 10 and all(row["latency"] and row["reuse"] for row in table if row["state"] == "done")
    assert best["llms.dynamo.prefix_total_requests"] != 1
    assert any(row["pareto"] == "True" for row in table) is (objective == "pareto")


async def test_several_runs_at_a_time(write: Write, tmp_path: Path) -> None:
    runs = Runs()
    running = most = 0
    three = asyncio.Event()

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            three.set()
        try:
            await three.wait()
            return await runs(*args, **kwargs)
        finally:
            running -= 1

    await sweep(write(("seed: 7", "seed: 7\n    parallel: 3")), counted)
    assert most == 3
    assert len(rows(tmp_path / "out")) == 8


async def test_the_first_error_ends_the_runs_beside_it(write: Write) -> None:
    ended: list[str] = []

    class Beside(Runs):
        async def __call__(self, config: Any, objectives: Any, *, salt: str, **more: Any) -> Any:
            if config.llms["dynamo"].prefix_total_requests == 10:
                raise RunFailed("the current config does not answer")
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(salt)

    file = write(("seed: 7", "seed: 7\n    parallel: 4"))
    with pytest.raises(SweepError, match="does not answer"):
        await sweep(file, Beside())
    assert ended
    # Those are in the queue again.
    assert (await sweep(file, Runs()))[2] == 8


async def test_no_file_holds_the_key(write: Write, tmp_path: Path) -> None:
    await sweep(write(), Runs())
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert {"optimized_config.yml", "report.html", "study.db", "trials.csv"} <= {file.name for file in files}
    assert not any(KEY.encode() in file.read_bytes() for file in files)


FORK = multiprocessing.get_context("fork")


def start(file: Path, log: Path, on_run: Callable[[int, Any], None] = lambda number, llm: None) -> Any:
    """A sweep in a process of its own."""

    def work() -> None:
        os.setsid()
        runs = Runs(log)
        runs.on_run = on_run
        asyncio.run(sweep(file, runs))

    process = FORK.Process(target=work)
    process.start()
    return process


def logged(log: Path) -> list[str]:
    """The salts of all runs, in order."""
    return [json.loads(line)[3] for line in log.read_text().splitlines()]


def test_two_processes_share_a_study_and_do_each_run_once(write: Write, tmp_path: Path) -> None:
    file, log = write(("n_trials: 8", "n_trials: 16\n    block: 2")), tmp_path / "log"
    both_have_one = FORK.Barrier(2)
    processes = [start(file, log, lambda number, llm: both_have_one.wait() if number == 0 else None) for _ in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    salts = logged(log)
    assert len(salts) == len(set(salts)) == 16 * 2 + 9
    table = rows(tmp_path / "out")
    assert [row["trial"] for row in table] == [str(k) for k in range(16)]
    assert len({row["process"] for row in table}) == 2


def test_a_killed_sweep_goes_on_and_repeats_no_finished_run(write: Write, tmp_path: Path) -> None:
    file, log = write(("n_trials: 8", "n_trials: 8\n    pruner: none")), tmp_path / "log"
    there = FORK.Event()

    def wait_for_the_end(number: int, _llm: Any) -> None:
        if number == 11:
            there.set()
            signal.pause()

    process = start(file, log, wait_for_the_end)
    there.wait()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    before = logged(log)
    assert len(before) == 11
    again = start(file, log)
    again.join()
    assert again.exitcode == 0
    after = logged(log)[11:]
    assert not set(before) & set(after)
    assert len({salt for salt in before + after if "finals" not in salt}) == 16
    assert all(row["state"] == "done" and row["runs"] == "2" for row in rows(tmp_path / "out"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("evaluator_name: latency", "evaluator_name: latencies", "eval.evaluators has latency, reuse"),
        ("direction: minimize", "direction: down", "use minimize or maximize"),
        ("direction: minimize", "direction: minimize, weight: 0", "above 0"),
        (
            "seed: 7",
            "seed: 7\n    search_space: {llms.dynamo.prefix_templat: {values: [a]}}",
            "did you mean prefix_template",
        ),
        (
            "seed: 7",
            "seed: 7\n    search_space: {llms.dynamo.prefix_total_requests: {values: [60]}}",
            "config refuses .*prefix_total_requests.*60",
        ),
    ],
)
async def test_bad_settings_are_named(write: Write, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        await sweep(write((old, new)), Runs())
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("n_trails: 8", "did you mean n_trials"), ("n_trials: 1", "n_trials=1"), ("sampler: bayes", "sampler='bayes'")],
)
def test_bad_fields_are_named(write: Write, text: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        load_config(write(("n_trials: 8", text)))


CACHED = ("    _type: dynamo\n", "    _type: dynamo\n    cache: {}\n")


async def test_a_response_cache_is_refused_unless_it_is_allowed(write: Write) -> None:
    runs = Runs()
    with pytest.raises(ValueError, match=r"llms\.dynamo\.cache: a sweep would measure answers that are given again"):
        await sweep(write(CACHED), runs)
    assert not runs.seen
    await sweep(write(CACHED, ("seed: 7", "seed: 7\n    allow_cache: true")), runs)
    assert runs.seen


NOTHING = ("    optimizable_params: [prefix_total_requests, prefix_osl, prefix_iat]\n", "")


async def test_what_tunes_nothing_does_not_end_as_if_all_were_well(write: Write) -> None:
    # As `nat optimize` does it, which passes over optimizers where it finds nothing to tune.
    with pytest.raises(ValueError, match="nothing to tune"):
        await optimize_config(OptimizerRunConfig(config_file=write(NOTHING), dataset=None))
    other = ("eval:\n", "  other: {_type: openai, model_name: m, optimizable_params: [temperatur]}\n\neval:\n")
    with pytest.raises(ValueError, match=r"llms\.other.*'temperatur' is not tuned.*did you mean temperature"):
        await optimize_config(OptimizerRunConfig(config_file=write(NOTHING, other), dataset=None))


async def test_a_search_space_alone_is_enough(write: Write, tmp_path: Path) -> None:
    space = ("seed: 7", "seed: 7\n    search_space: {llms.dynamo.prefix_osl: {values: [LOW, MEDIUM]}}")
    await sweep(write(NOTHING, space), Runs())
    assert [row["prefix_osl"] for row in rows(tmp_path / "out")] == ["MEDIUM", "LOW"]


def test_a_misspelt_optimizer_is_not_taken_for_nats_own(write: Write) -> None:
    with pytest.raises(Exception, match="did you mean dynamo_sweep"):
        load_config(write(("dynamo_sweep", "dynamo_sweeps")))
    assert load_config(write(("_type: dynamo_sweep", "_type: numeric"), ("    final_rounds: 3\n", "")))


async def test_nothing_but_tuned_values_changes_in_the_file(write: Write, tmp_path: Path) -> None:
    file = write(*BAD)
    _, best, _ = await sweep(file, Runs())
    tuned = (tmp_path / "out" / "optimized_config.yml").read_text()
    before, after = file.read_text().splitlines(), tuned.splitlines()
    kept = [line for line in before if "prefix_" not in line or "optimizable" in line]
    assert [line for line in after if "prefix_" not in line or "optimizable" in line] == kept
    assert "api_key: ${SWEEP_TEST_KEY}" in tuned
    names = ("optimized_config.yml", "trials.csv", "report.html", "study.db", "study.db.lock")
    assert {name: (tmp_path / "out" / name).stat().st_mode & 0o777 for name in names} == dict.fromkeys(names, 0o600)
    assert "# calls of a question" in tuned
    llm = yaml.safe_load(tuned)["llms"]["dynamo"]
    assert {
        f"llms.dynamo.{name}": llm[name] for name in ("prefix_total_requests", "prefix_osl")
    }.items() <= best.items()
