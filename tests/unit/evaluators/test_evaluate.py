"""Evaluators as NAT runs them: built from config, scored, written to a file, read by the optimizer."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import math
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from nat.builder.evaluator import EvaluatorInfo
from nat.cli.type_registry import GlobalTypeRegistry
from nat.data_models.dataset_handler import EvalDatasetJsonConfig
from nat.data_models.evaluator import EvalInput
from nat.plugins.eval.data_models.evaluator_io import EvalOutput
from nat.plugins.eval.dataset_handler.dataset_handler import DatasetHandler
from nat.plugins.eval.eval_callbacks import build_eval_result
from nat.plugins.eval.evaluator.atif_evaluator import AtifEvaluator, LegacyEvaluator
from nat.plugins.eval.exporters.file_eval_callback import FileEvalCallback
from pydantic import ValidationError
from rich.console import Console

from nat_dynamo_plugin.cli.summary import load_report, print_report
from nat_dynamo_plugin.evaluators import register  # noqa: F401
from nat_dynamo_plugin.evaluators.evaluate import NoAverage
from nat_dynamo_plugin.evaluators.failures import FailedAnswer
from nat_dynamo_plugin.evaluators.kv_reuse import KvReuseConfig
from nat_dynamo_plugin.evaluators.metric import DynamoMetricConfig
from nat_dynamo_plugin.evaluators.question_latency import QuestionLatencyConfig
from nat_dynamo_plugin.evaluators.ttft import TtftConfig
from nat_dynamo_plugin.evaluators.worker_stickiness import WorkerStickinessConfig
from nat_dynamo_plugin.telemetry.record import CallRecord

CONFIGS: list[type[DynamoMetricConfig]] = [
    KvReuseConfig,
    TtftConfig,
    WorkerStickinessConfig,
    QuestionLatencyConfig,
]


async def run(config: DynamoMetricConfig, eval_input: EvalInput) -> Any:
    """Build the evaluator from NAT's registry and run it the way `nat eval` does."""
    registered = GlobalTypeRegistry.get().get_evaluator(type(config))
    async with registered.build_fn(config, None) as info:
        assert isinstance(info, EvaluatorInfo)
        assert isinstance(info, LegacyEvaluator)
        assert not isinstance(info, AtifEvaluator)
        return await info.evaluate_fn(eval_input)


def save_like_nat(directory: Path, outputs: dict[str, Any], eval_input: EvalInput, step_filter: Any = None) -> None:
    """Write an output directory with NAT's own serialiser and file writer."""
    handler = DatasetHandler(EvalDatasetJsonConfig(), reps=1, concurrency=1)
    FileEvalCallback().on_eval_complete(
        build_eval_result(
            eval_input_items=eval_input.eval_input_items,
            evaluation_results=list(outputs.items()),
            metric_scores={name: output.average_score for name, output in outputs.items()},
            workflow_output_json=handler.publish_eval_input(eval_input, step_filter),
            output_dir=directory,
        )
    )


@pytest.mark.parametrize(
    ("config_type", "name"),
    [
        (KvReuseConfig, "dynamo_kv_reuse"),
        (TtftConfig, "dynamo_ttft"),
        (WorkerStickinessConfig, "dynamo_worker_stickiness"),
        (QuestionLatencyConfig, "dynamo_question_latency"),
    ],
)
def test_registered_by_name(config_type: type[DynamoMetricConfig], name: str) -> None:
    assert config_type.static_type() == name
    assert GlobalTypeRegistry.get().get_evaluator(config_type).local_name == name


class TestConfig:
    def test_defaults(self) -> None:
        config = KvReuseConfig()
        assert (config.statistic, config.min_coverage) == ("mean", 0.9)

    def test_yaml_form(self) -> None:
        config = TtftConfig.model_validate({"_type": "dynamo_ttft", "statistic": "p95", "measured_at": "client"})
        assert (config.statistic, config.measured_at, config.type) == ("p95", "client", "dynamo_ttft")

    def test_round_trip_through_a_dump(self) -> None:
        config = TtftConfig(statistic="p50")
        for by_alias in (True, False):
            assert TtftConfig.model_validate(config.model_dump(by_alias=by_alias)).statistic == "p50"

    def test_misspelt_field_names_the_nearest(self) -> None:
        with pytest.raises(ValidationError, match=r"statistics='p95'.*did you mean statistic\?"):
            KvReuseConfig.model_validate({"_type": "dynamo_kv_reuse", "statistics": "p95"})

    @pytest.mark.parametrize(
        "bad", [{"statistic": "p99"}, {"min_coverage": 0}, {"min_coverage": 1.1}, {"measured_at": "proxy"}]
    )
    def test_out_of_range(self, bad: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match=next(iter(bad))):
            TtftConfig.model_validate(bad)


class TestScores:
    async def test_question_and_dataset_use_one_rule(self, build: SimpleNamespace) -> None:
        eval_input = build.eval_input(
            a=build.question(build.served(prompt_tokens=100, cached_tokens=0)),
            b=build.question(
                build.served(prompt_tokens=100, cached_tokens=80), build.served(prompt_tokens=200, cached_tokens=160)
            ),
        )
        output = await run(KvReuseConfig(), eval_input)
        assert [item.score for item in output.eval_output_items] == [0.0, 0.8]
        # Weighted by tokens, not the 0.4 that a mean of the two questions would be.
        assert output.average_score == 240 / 400
        assert output.metric.samples == 3

    async def test_average_is_not_rounded(self, build: SimpleNamespace) -> None:
        question = build.question(build.served(prompt_tokens=30_000, cached_tokens=20_001))
        output = await run(KvReuseConfig(), build.eval_input(a=question))
        assert output.average_score == 20_001 / 30_000

    async def test_percentile_is_over_all_calls(self, build: SimpleNamespace) -> None:
        eval_input = build.eval_input(
            **{
                f"q{n}": build.question(*(build.served(server_ttft_ms=float(10 * n + m)) for m in range(10)))
                for n in range(10)
            }
        )
        output = await run(TtftConfig(statistic="p95"), eval_input)
        assert output.average_score == pytest.approx(94.05)
        assert output.eval_output_items[0].score == pytest.approx(8.55)

    async def test_latency_and_stickiness_are_over_questions(self, build: SimpleNamespace) -> None:
        eval_input = build.eval_input(
            a=build.question(*(build.served(worker_id=w) for w in (1, 1, 1, 2)), seconds=1.0),
            b=build.question(build.served(worker_id=1), seconds=4.0),
        )
        assert (await run(WorkerStickinessConfig(), eval_input)).average_score == (0.75 + 1) / 2
        assert (await run(QuestionLatencyConfig(), eval_input)).average_score == 2.5

    async def test_reasoning_has_the_figures(self, build: SimpleNamespace) -> None:
        eval_input = build.eval_input(
            a=build.question(
                build.served(worker_id=3, prefix_id="eval-a"),
                CallRecord(prefix_id="eval-a", status=200),
                CallRecord(prefix_id="eval-a", status=200, error="closed early", error_type="left"),
                {"prompt_tokens": "?"},
            )
        )
        (item,) = (await run(KvReuseConfig(), eval_input)).eval_output_items
        reasoning = item.reasoning
        assert item.score == 0.5
        assert {
            "calls": 4,
            "failed_calls": 1,
            "calls_without_dynamo_data": 2,
            "samples": 1,
            "prefix_ids": ["eval-a"],
            "workers": {"3": 1},
            "prompt_tokens": 100,
            "cached_tokens": 50,
            "unit": "share",
            "statistic": "mean",
        }.items() <= reasoning.items()
        assert len(reasoning["problems"]) == 1
        assert "no_score_because" not in reasoning


class TestMissingData:
    async def test_question_without_data_is_left_out_and_says_so(
        self, build: SimpleNamespace, caplog: pytest.LogCaptureFixture
    ) -> None:
        questions = {f"q{n}": build.question(build.served(server_ttft_ms=30.0)) for n in range(9)}
        eval_input = build.eval_input(**questions, silent=build.question(CallRecord(status=200)))
        with caplog.at_level(logging.WARNING):
            output = await run(TtftConfig(), eval_input)
        assert output.average_score == 30.0
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert caplog.messages == [f"Evaluator dynamo_ttft: {output.metric.problem}"]
        assert [item.id for item in output.eval_output_items] == [*questions, "silent"]
        assert [item.error for item in output.eval_output_items[:-1]] == [None] * 9
        last = output.eval_output_items[-1]
        assert last.score is None
        assert output.metric.problem == (
            f"9 of 10 questions have a score (the first without: {last.error}); 9 of 10 answered LLM calls have data"
        )
        assert "without Dynamo data" in last.error
        assert last.reasoning["no_score_because"] == last.error
        assert "9 of 10" in output.metric.problem
        assert "9 of 10" in caplog.text

    @pytest.mark.parametrize("config_type", CONFIGS)
    async def test_no_data_at_all_is_nan_and_an_error(
        self, build: SimpleNamespace, config_type: type[DynamoMetricConfig], caplog: pytest.LogCaptureFixture
    ) -> None:
        # What NAT leaves of a workflow that raised: no trajectory.
        with caplog.at_level(logging.ERROR):
            output = await run(config_type(), build.eval_input(a=[], b=[]))
        assert math.isnan(output.average_score)
        assert f"{output.average_score:.4f}" == str(output.average_score) == "-"
        assert [item.score for item in output.eval_output_items] == [None, None]
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert config_type.static_type() in caplog.text
        assert "0 of 2" in caplog.text

    async def test_empty_dataset(self, build: SimpleNamespace) -> None:
        output = await run(TtftConfig(), build.eval_input())
        assert math.isnan(output.average_score)
        assert output.metric.problem == (
            "no average: 0 of 0 questions have a score (the first without: the dataset is empty); min_coverage is 0.9"
        )

    async def test_failed_questions_are_counted_and_in_no_average(self, build: SimpleNamespace) -> None:
        failed = build.question(
            build.served(server_ttft_ms=1000.0), CallRecord(status=200, error="half", error_type="cut_short")
        )
        eval_input = build.eval_input(
            a=build.question(build.served(server_ttft_ms=30.0)), b=failed, c=failed, d=build.question(build.served())
        )
        eval_input.eval_input_items[3].output_obj, eval_input.eval_input_items[3].trajectory = "", []
        output = await run(TtftConfig(), eval_input)
        assert output.average_score == 30.0
        assert [item.score for item in output.eval_output_items] == [30.0, None, None, None]
        assert output.metric.failures == {"cut_short": 2, "not_run": 1}
        assert "3 of 4 questions failed (cut_short 2, not_run 1)" in output.metric.problem
        assert "half" in output.eval_output_items[1].error

    async def test_who_tunes_counts_failures_against_the_coverage(self, build: SimpleNamespace) -> None:
        eval_input = build.eval_input(
            a=build.question(build.served()), b=build.question(CallRecord(status=503, error="down"))
        )
        assert math.isnan((await run(TtftConfig(strict=True, min_coverage=1), eval_input)).average_score)
        assert (await run(TtftConfig(min_coverage=1), eval_input)).average_score == 20.0

    async def test_a_crash_does_not_count_as_fast(self, build: SimpleNamespace) -> None:
        """Six questions of 5 s, and four whose workflow gave up before its first call."""
        questions = {f"q{n}": build.question(build.served(), seconds=5.0) for n in range(6)}
        crashed = {f"c{n}": build.question(seconds=0.01) for n in range(4)}
        eval_input = build.eval_input(**questions, **crashed)
        output = await run(QuestionLatencyConfig(min_coverage=0.6), eval_input)
        assert output.average_score == 5.0
        assert [item.score for item in output.eval_output_items] == [5.0] * 6 + [None] * 4
        assert "6 of 10 questions have a score" in output.metric.problem
        assert "no LLM call" in output.metric.problem
        assert math.isnan((await run(QuestionLatencyConfig(), eval_input)).average_score)

    @pytest.mark.parametrize("strict", [True, False])
    @pytest.mark.parametrize("config_type", CONFIGS)
    async def test_a_question_without_a_call_has_no_part_in_any_average(
        self, build: SimpleNamespace, config_type: type[DynamoMetricConfig], strict: bool
    ) -> None:
        served = build.served(server_ttft_ms=30.0, client_ttft_ms=35.0)
        eval_input = build.eval_input(a=build.question(served, seconds=5.0), b=build.question(seconds=0.01))
        output = await run(config_type(min_coverage=0.5, strict=strict), eval_input)
        alone = await run(config_type(), build.eval_input(a=build.question(served, seconds=5.0)))
        assert output.average_score == alone.average_score
        assert [item.score is None for item in output.eval_output_items] == [False, True]
        assert output.metric.scored_questions == 1
        assert "1 of 2 questions have a score" in output.metric.problem

    @pytest.mark.parametrize("config_type", CONFIGS)
    @pytest.mark.parametrize("end", ["cut", "call", "status", "raised", "unended call"])
    async def test_a_failed_question_has_no_part_in_any_average(
        self, build: SimpleNamespace, config_type: type[DynamoMetricConfig], end: str
    ) -> None:
        """An interrupted workflow, a call that ended in an error or a status of 400, an exception."""
        served = build.served(server_ttft_ms=9.0, worker_id=1, cached_tokens=99)
        steps = {
            "cut": build.question(served)[:-1],
            "call": build.question(served, CallRecord(error="broke off", error_type="cut_short")),
            "status": build.question(served, build.served(status=400)),
            "raised": build.question(served),
            "unended call": build.workflow(*build.call_steps(served), *build.call_steps(served)[:1]),
        }[end]
        good = build.question(build.served(server_ttft_ms=30.0), seconds=5.0)
        eval_input = build.eval_input(good=good, bad=steps)
        bad = eval_input.eval_input_items[1]
        if end == "raised":
            bad.output_obj = FailedAnswer.of(RuntimeError("out of luck"))
        elif end == "cut":
            bad.output_obj = ""
        output = await run(config_type(), eval_input)
        alone = await run(config_type(), build.eval_input(good=good))
        assert output.average_score == alone.average_score
        assert [item.score is None for item in output.eval_output_items] == [False, True]
        kinds = {"cut": "not_run", "call": "cut_short", "status": "400", "raised": "RuntimeError"}
        assert output.metric.failures == {kinds.get(end, "_OTHER"): 1}
        assert (output.metric.questions, output.metric.scored_questions) == (2, 1)

    @pytest.mark.parametrize("config_type", CONFIGS)
    @pytest.mark.parametrize("silent", [CallRecord(status=200), None])
    async def test_strict_takes_no_question_that_lacks_data(
        self, build: SimpleNamespace, config_type: type[DynamoMetricConfig], silent: CallRecord | None
    ) -> None:
        """With one silent call among others, or no call through Dynamo at all."""
        served = build.served(server_ttft_ms=30.0)
        lacking = (
            build.question(served, silent) if silent else build.workflow(build.step("LLM_END", build.T0, name="gpt"))
        )
        eval_input = build.eval_input(a=build.question(served), b=lacking)
        output = await run(config_type(strict=True, min_coverage=0.5), eval_input)
        assert [item.score is None for item in output.eval_output_items] == [False, True]
        assert math.isnan((await run(config_type(strict=True, min_coverage=1), eval_input)).average_score)
        if silent:
            lenient = await run(config_type(min_coverage=0.5), eval_input)
            assert all(item.score is not None for item in lenient.eval_output_items)

    @pytest.mark.parametrize("config_type", [KvReuseConfig, TtftConfig, WorkerStickinessConfig])
    async def test_coverage_is_of_calls_too(
        self, build: SimpleNamespace, config_type: type[DynamoMetricConfig]
    ) -> None:
        """Every question has a score, but most of their calls came back without data."""
        mute = CallRecord(status=200, prompt_tokens=100)
        eval_input = build.eval_input(**{f"q{n}": build.question(build.served(), *[mute] * 9) for n in range(5)})
        output = await run(config_type(), eval_input)
        assert math.isnan(output.average_score)
        assert output.metric.problem == "no average: 5 of 50 answered LLM calls have data; min_coverage is 0.9"
        assert (output.metric.scored_questions, output.metric.calls, output.metric.covered_calls) == (5, 50, 5)
        assert math.isfinite((await run(config_type(min_coverage=0.1), eval_input)).average_score)
        assert math.isnan((await run(config_type(min_coverage=0.11), eval_input)).average_score)

    async def test_calls_of_failed_questions_are_not_missed(self, build: SimpleNamespace) -> None:
        failed = build.question(CallRecord(status=200), CallRecord(status=503, error="down"))
        output = await run(TtftConfig(min_coverage=1), build.eval_input(a=build.question(build.served()), b=failed))
        assert output.average_score == 20.0
        assert (output.metric.calls, output.metric.covered_calls) == (1, 1)

    async def test_latency_needs_no_data_of_calls(self, build: SimpleNamespace) -> None:
        output = await run(QuestionLatencyConfig(), build.eval_input(a=build.question(CallRecord(status=200))))
        assert (output.average_score, output.metric.problem) == (2.0, None)

    async def test_ttft_of_a_server_that_is_no_dynamo_is_the_clients(
        self, build: SimpleNamespace, tmp_path: Path
    ) -> None:
        streamed = CallRecord(status=200, client_ttft_ms=40.0)
        eval_input = build.eval_input(a=build.question(streamed, streamed))
        output = await run(TtftConfig(), eval_input)
        assert (output.average_score, output.metric.problem) == (40.0, None)
        assert output.eval_output_items[0].reasoning["measured_at"] == "client"
        assert math.isnan((await run(TtftConfig(measured_at="server"), eval_input)).average_score)
        save_like_nat(tmp_path, {"ttft": output}, eval_input)
        console = Console(record=True, width=200)
        print_report(load_report(tmp_path), console)
        assert "time to first token of a call, client's clock" in console.export_text()
        dynamo = await run(TtftConfig(), build.eval_input(a=build.question(build.served())))
        assert (dynamo.average_score, dynamo.metric.meaning) == (20.0, "time to first token of a call, server's clock")

    @pytest.mark.parametrize(("min_coverage", "finite"), [(0.5, True), (0.51, False)])
    async def test_min_coverage(self, build: SimpleNamespace, min_coverage: float, finite: bool) -> None:
        eval_input = build.eval_input(a=build.question(build.served()), b=[])
        output = await run(TtftConfig(min_coverage=min_coverage), eval_input)
        assert math.isfinite(output.average_score) is finite

    async def test_optimizer_never_prefers_missing_telemetry(self, build: SimpleNamespace) -> None:
        """What NAT's optimizer does with `average_score`: average the repetitions, hand them to Optuna."""
        with_data = build.eval_input(a=build.question(build.served(server_ttft_ms=50.0)))
        without = build.eval_input(a=build.question(CallRecord(status=200)))
        scores = {
            good: [
                (await run(TtftConfig(), with_data)).average_score,
                (await run(TtftConfig(), with_data if good else without)).average_score,
            ]
            for good in (True, False)
        }
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            directions=["minimize"], sampler=optuna.samplers.GridSampler({"good": [True, False]}, seed=0)
        )
        study.optimize(lambda t: [sum(scores[t.suggest_categorical("good", [True, False])]) / 2], n_trials=2)
        assert {(t.params["good"], t.state.name) for t in study.trials} == {(True, "COMPLETE"), (False, "FAIL")}
        assert [t.params for t in study.best_trials] == [{"good": True}]


class TestSavedFiles:
    @pytest.mark.parametrize("statistic", ["mean", "p95"])
    async def test_round_trip_through_nats_writer(self, build: SimpleNamespace, tmp_path: Path, statistic: Any) -> None:
        eval_input = build.eval_input(
            a=build.question(build.served(worker_id=1, prefix_id="a"), seconds=1.0),
            b=build.question(build.served(worker_id=2, prefix_id="b"), start=build.T0 + 1, seconds=2.0),
        )
        outputs = {f"my_{c.static_type()}": await run(c(statistic=statistic), eval_input) for c in CONFIGS}
        save_like_nat(tmp_path, outputs, eval_input)
        for name, output in outputs.items():
            read = EvalOutput.model_validate_json((tmp_path / f"{name}_output.json").read_text())
            assert read.average_score == output.average_score
            assert [i.score for i in read.eval_output_items] == [i.score for i in output.eval_output_items]
            assert [i.reasoning for i in read.eval_output_items] == [i.reasoning for i in output.eval_output_items]
        report = load_report(tmp_path)
        assert {row.name: row.value for row in report.metrics} == {
            name: output.average_score for name, output in outputs.items()
        }
        assert {row.statistic for row in report.metrics} == {statistic}
        assert report.wall_time_s == 3.0

    async def test_no_average_is_null_in_strict_json(self, build: SimpleNamespace, tmp_path: Path) -> None:
        eval_input = build.eval_input(a=build.question(CallRecord(status=200)))
        save_like_nat(tmp_path, {"ttft": await run(TtftConfig(), eval_input)}, eval_input)

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        saved = json.loads((tmp_path / "ttft_output.json").read_text(), parse_constant=refuse)
        assert saved["average_score"] is None
        assert "0 of 1" in saved["metric"]["problem"]
        (row,) = load_report(tmp_path).metrics
        assert row.value is None
        assert row.problem == saved["metric"]["problem"]

    @pytest.mark.parametrize("step_filter", [None, []])
    async def test_counts_with_and_without_saved_custom_steps(
        self, build: SimpleNamespace, tmp_path: Path, step_filter: Any
    ) -> None:
        """NAT's default filter (`None`) drops custom steps, `[]` keeps all steps. The counts are the same."""
        eval_input = build.eval_input(
            a=build.question(build.served(worker_id=1, prefix_id="a"), build.served(worker_id=2, prefix_id="a")),
            b=build.question(build.served(worker_id=1, prefix_id="b"), CallRecord(status=503, error="down")),
        )
        save_like_nat(tmp_path, {"reuse": await run(KvReuseConfig(), eval_input)}, eval_input, step_filter)
        assert ("CUSTOM_END" in (tmp_path / "workflow_output.json").read_text()) == (step_filter == [])
        report = load_report(tmp_path)
        assert [(f.calls, f.failed_calls, f.prefix_ids) for f in report.figures] == [(2, 0, ["a"]), (2, 1, ["b"])]
        assert [f.workers for f in report.figures] == [{"1": 1, "2": 1}, {"1": 1}]

    async def test_saved_trajectories_can_be_evaluated_again(self, build: SimpleNamespace, tmp_path: Path) -> None:
        # Dynamo's worker ids are unsigned 64-bit numbers.
        eval_input = build.eval_input(a=build.question(build.served(server_ttft_ms=12.5, worker_id=2**64 - 1)))
        first = await run(TtftConfig(), eval_input)
        save_like_nat(tmp_path, {"ttft": first}, eval_input, [])
        handler = DatasetHandler(EvalDatasetJsonConfig(), reps=1, concurrency=1)
        again = handler.get_eval_input_from_dataset(str(tmp_path / "workflow_output.json"))
        second = await run(TtftConfig(), again)
        assert second.average_score == first.average_score == 12.5
        assert second.eval_output_items[0].reasoning["workers"] == {str(2**64 - 1): 1}

    async def test_printed(self, build: SimpleNamespace, tmp_path: Path) -> None:
        eval_input = build.eval_input(a=build.question(build.served(), build.served()))
        save_like_nat(tmp_path, {c.static_type(): await run(c(), eval_input) for c in CONFIGS}, eval_input)
        console = Console(width=80, record=True, file=sys.stderr, force_terminal=False)
        print_report(load_report(tmp_path), console)
        text = console.export_text()
        for expected in ("50.0 %", "20.0 ms", "100.0 %", "2.00 s", "2 (0 failed", "200 prompt (100 cached)"):
            assert expected in text


def test_evaluation_needs_no_running_loop_of_its_own(build: SimpleNamespace) -> None:
    """Each optimizer trial is a fresh event loop; the registered evaluator must not hold on to one."""
    eval_input = build.eval_input(a=build.question(build.served()))
    assert [asyncio.run(run(TtftConfig(), eval_input)).average_score for _ in range(2)] == [20.0, 20.0]


def test_no_average_survives_a_copy() -> None:
    assert copy.deepcopy(NoAverage()) != NoAverage() and isinstance(pickle.loads(pickle.dumps(NoAverage())), NoAverage)
    assert f"{copy.deepcopy(NoAverage()):.2f}" == "-"
