"""`nat eval` with the journal: failures are counted and excluded, a run that was cut goes on, nothing is asked twice.

The workflow here calls no server: it says what became of its calls. What a kill leaves is tried in `tests/local`.
"""

from __future__ import annotations

import json
import logging
import math
import stat
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from nat.builder.builder import Builder, EvalBuilder
from nat.builder.evaluator import EvaluatorInfo
from nat.builder.function_info import FunctionInfo
from nat.cli.register_workflow import register_evaluator, register_function
from nat.data_models.evaluate_runtime import EvaluationRunConfig
from nat.data_models.evaluator import EvalInput, EvalInputItem, EvaluatorBaseConfig
from nat.data_models.function import FunctionBaseConfig
from nat.plugins.eval.data_models.evaluator_io import EvalOutput, EvalOutputItem
from nat.plugins.eval.evaluator.base_evaluator import BaseEvaluator
from nat.plugins.eval.runtime.evaluate import EvaluationRun
from nat.runtime.loader import PluginTypes, discover_and_register_plugins, load_config
from pydantic import ValidationError

from nat_dynamo_plugin.evaluators import keeping
from nat_dynamo_plugin.evaluators.answered import AnsweredConfig
from nat_dynamo_plugin.nat.journal import JOURNAL, Journal, read
from nat_dynamo_plugin.telemetry.nat_steps import export
from nat_dynamo_plugin.telemetry.record import CallRecord

QUESTIONS = [f"q{number}" for number in range(8)]
OTHERS = "foreign"


class Behaviour:
    """What the workflow does with each question; what it was asked."""

    def __init__(self) -> None:
        self.raises: dict[str, BaseException] = {}
        self.failed_calls: dict[str, CallRecord] = {}
        self.gives_up: dict[str, BaseException | None] = {}
        self.asked: list[str] = []
        self.judged: list[str] = []
        self.average: float | None = None

    def answer(self, question: str) -> str:
        self.asked.append(question)
        if question in self.gives_up:  # before its first call, with an error or with words
            error = self.gives_up[question]
            if error is not None:
                raise error
            return "Sorry, something went wrong."
        export(CallRecord(status=200, worker_id=1, server_ttft_ms=10.0, prompt_tokens=100, cached_tokens=50))
        if question in self.failed_calls:
            export(self.failed_calls[question])
        if question in self.raises:
            raise self.raises[question]
        return f"answer to {question}"


behaviour = Behaviour()


class ToldConfig(FunctionBaseConfig, name="test_told"):
    """A workflow that does what `behaviour` says."""

    version: int = 1


class ForeignConfig(EvaluatorBaseConfig, name="test_foreign"):
    """Somebody's evaluator: 1 for an answer, 0 for none."""


class Foreign(BaseEvaluator):
    async def evaluate(self, eval_input: EvalInput) -> EvalOutput:
        output = await super().evaluate(eval_input)
        if behaviour.average is not None:
            output.average_score = behaviour.average
        return output

    async def evaluate_item(self, item: EvalInputItem) -> EvalOutputItem:
        behaviour.judged.append(item.id)
        return EvalOutputItem(id=item.id, score=1.0 if item.output_obj else 0.0, reasoning={})


@register_function(config_type=ToldConfig)
async def told(config: ToldConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    async def answer(question: str) -> str:
        return behaviour.answer(question)

    yield FunctionInfo.from_fn(answer, description="told")


@register_evaluator(config_type=ForeignConfig)
async def foreign(config: ForeignConfig, builder: EvalBuilder) -> AsyncIterator[EvaluatorInfo]:
    yield EvaluatorInfo(config=config, evaluate_fn=Foreign().evaluate, description="foreign")


@pytest.fixture(autouse=True)
def _as_nat_eval_starts() -> None:
    discover_and_register_plugins(PluginTypes.ALL)
    keeping.install()
    behaviour.__init__()  # type: ignore[misc]


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    made: dict[str, Any] = {
        "llms": {"dynamo": {"_type": "dynamo", "base_url": "http://127.0.0.1:9/v1", "model_name": "m"}},
        "workflow": {"_type": "test_told"},
        "eval": {
            "general": {
                "max_concurrency": 2,
                "output": {"dir": str(tmp_path / "out"), "workflow_output_step_filter": ["CUSTOM_END"]},
                "dataset": {"_type": "json", "file_path": str(tmp_path / "questions.json")},
            },
            "evaluators": {
                "answered": {"_type": "dynamo_answered"},
                "reuse": {"_type": "dynamo_kv_reuse"},
                OTHERS: {"_type": "test_foreign"},
            },
        },
    }
    ask(made, QUESTIONS)
    return made


def ask(config: dict[str, Any], questions: list[str]) -> None:
    rows = [{"id": name, "question": text, "answer": ""} for name, text in zip(QUESTIONS, questions, strict=True)]
    Path(config["eval"]["general"]["dataset"]["file_path"]).write_text(json.dumps(rows))


def written(config: dict[str, Any]) -> Path:
    path = Path(config["eval"]["general"]["output"]["dir"]).parent / "config.yml"
    path.write_text(yaml.safe_dump(config))
    return path


async def run(config: dict[str, Any], **options: Any) -> Any:
    return await EvaluationRun(EvaluationRunConfig(config_file=written(config), **options)).run_and_evaluate()


def scores(output: Any) -> dict[str, Any]:
    return {name: result.average_score for name, result in output.evaluation_results}


def journal(config: dict[str, Any]) -> Path:
    return Path(config["eval"]["general"]["output"]["dir"]) / JOURNAL


async def test_all_answered(config: dict[str, Any]) -> None:
    output = await run(config)
    assert scores(output) == {"answered": 1.0, "reuse": 0.5, OTHERS: 1.0}
    entries = read(journal(config))
    assert entries.finished
    assert len(entries.questions) == len(entries.calls) == len(QUESTIONS)
    assert stat.S_IMODE(journal(config).stat().st_mode) == 0o600


async def test_a_workflow_that_raises_fails_one_question_and_is_in_no_average(config: dict[str, Any]) -> None:
    behaviour.raises = {"q1": RuntimeError("no route"), "q4": NotImplementedError("not yet")}
    behaviour.failed_calls = {"q4": CallRecord(status=503, error="overloaded", error_type="503")}
    output = await run(config)
    assert Counter(behaviour.asked) == Counter(QUESTIONS)
    assert scores(output) == {"answered": 6 / 8, "reuse": 0.5, OTHERS: 1.0}
    assert sorted(behaviour.judged) == sorted(set(QUESTIONS) - {"q1", "q4"})
    results = dict(output.evaluation_results)
    assert results["answered"].metric.failures == results["reuse"].metric.failures == {"RuntimeError": 1, "503": 1}
    assert "2 of 8 questions failed" in results["reuse"].metric.problem
    for result in results.values():
        assert [item.id for item in result.eval_output_items] == QUESTIONS
    assert results[OTHERS].eval_output_items[1].score is None
    assert "no route" in results[OTHERS].eval_output_items[1].error
    # What NAT would have dropped: the steps of the questions that failed.
    trajectories = {item.id: item.trajectory for item in output.eval_input.eval_input_items}
    assert sum(step.payload.name == "dynamo_llm_call" for step in trajectories["q4"]) == 4
    assert output.eval_input.eval_input_items[1].output_obj == ""
    assert read(journal(config)).failures == {"RuntimeError": 1, "503": 1}


async def test_a_crash_before_the_first_call_is_no_fast_answer(config: dict[str, Any]) -> None:
    config["eval"]["evaluators"]["latency"] = {"_type": "dynamo_question_latency", "min_coverage": 0.8}
    behaviour.gives_up = {"q1": RuntimeError("no tool"), "q2": RuntimeError("no tool"), "q5": None}
    output = await run(config)
    latency = dict(output.evaluation_results)["latency"]
    times = [item.score for item in latency.eval_output_items]
    known = [time for time in times if time is not None]
    assert [index for index, time in enumerate(times) if time is None] == [1, 2, 5]
    assert latency.average_score == pytest.approx(sum(known) / 5)
    assert latency.metric.failures == {"RuntimeError": 2}
    assert "5 of 8 questions have a score; 2 of 8 questions failed (RuntimeError 2)" in latency.metric.problem
    assert "no LLM call" in latency.eval_output_items[5].error


async def test_nobodys_average_is_nan(config: dict[str, Any]) -> None:
    """An evaluator that averages what it can not score."""
    behaviour.average = math.nan
    behaviour.raises = {"q1": RuntimeError("no route")}
    output = await run(config)
    assert str(scores(output)[OTHERS]) == "-"


async def test_a_workflow_that_catches_a_failed_call_has_no_answer(config: dict[str, Any]) -> None:
    behaviour.failed_calls = {"q2": CallRecord(status=200, error="cut", error_type="cut_short")}
    output = await run(config)
    assert scores(output) == {"answered": 7 / 8, "reuse": 0.5, OTHERS: 1.0}
    assert "q2" not in behaviour.judged


async def test_a_reader_that_leaves_early_has_its_answer(config: dict[str, Any]) -> None:
    behaviour.failed_calls = {"q2": CallRecord(status=200, error="closed early", error_type="left")}
    assert scores(await run(config))["answered"] == 1.0


async def test_when_all_fail_no_average_is_nan(config: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    from nat.plugins.eval.cli.evaluate import write_tabular_output

    behaviour.raises = dict.fromkeys(QUESTIONS, RuntimeError("down"))
    output = await run(config)
    write_tabular_output(output)
    table = capsys.readouterr().out
    assert "nan" not in table.lower()
    assert scores(output)["answered"] == 0.0
    for name in ("reuse", OTHERS):
        saved = json.loads((journal(config).parent / f"{name}_output.json").read_text())
        assert saved["average_score"] is None
        assert f"{scores(output)[name]:.4f}" == str(scores(output)[name]) == "-"
        # For an optimizer it must be no number to prefer.
        assert math.isnan(scores(output)[name])
    assert behaviour.judged == []


@pytest.mark.parametrize("cleanup", [True, False])
async def test_the_same_command_again_asks_only_what_failed(
    config: dict[str, Any], cleanup: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config["eval"]["general"]["output"]["cleanup"] = cleanup
    undisturbed = scores(await run(config))
    journal(config).unlink()
    behaviour.raises = {"q1": RuntimeError("no route")}
    behaviour.failed_calls = {"q5": CallRecord(status=503, error="overloaded")}
    await run(config)
    behaviour.__init__()  # type: ignore[misc]
    with caplog.at_level(logging.WARNING):
        output = await run(config)
    assert sorted(behaviour.asked) == ["q1", "q5"]
    assert "6 of 8 questions are answered" in caplog.text
    assert scores(output) == undisturbed
    assert [item.output_obj for item in output.eval_input.eval_input_items] == [f"answer to {q}" for q in QUESTIONS]
    assert set(output.usage_stats.usage_stats_items) == set(QUESTIONS)
    # Nothing is open any more, so the next run is a new one.
    behaviour.asked.clear()
    await run(config)
    assert sorted(behaviour.asked) == QUESTIONS


async def test_a_run_that_was_cancelled_goes_on(config: dict[str, Any]) -> None:
    class Stop(BaseException):
        """As Ctrl-C."""

    behaviour.raises = {"q6": Stop()}
    with pytest.raises(Stop):
        await run(config)
    before = set(read(journal(config)).answered)
    assert before
    assert "q6" not in before
    behaviour.__init__()  # type: ignore[misc]
    assert scores(await run(config))["answered"] == 1.0
    assert set(behaviour.asked) == set(QUESTIONS) - before
    assert len(behaviour.asked) == len(set(behaviour.asked))


async def cut(config: dict[str, Any]) -> None:
    behaviour.raises = {"q1": RuntimeError("no route")}
    await run(config)
    behaviour.__init__()  # type: ignore[misc]


async def test_another_workflow_does_not_take_the_answers(config: dict[str, Any], caplog: Any) -> None:
    await cut(config)
    config["workflow"]["version"] = 2
    await run(config)
    assert sorted(behaviour.asked) == QUESTIONS
    assert "journal-1.jsonl" in caplog.text
    assert len(read(journal(config).with_name("journal-1.jsonl")).answered) == 7


@pytest.mark.parametrize("change", ["evaluators", "concurrency"])
async def test_what_does_not_change_answers_may_change(config: dict[str, Any], change: str) -> None:
    await cut(config)
    if change == "evaluators":
        del config["eval"]["evaluators"]["reuse"]
    else:
        config["eval"]["general"]["max_concurrency"] = 1
    await run(config)
    assert behaviour.asked == ["q1"]


async def test_resume_true_takes_the_answers_of_another_workflow(config: dict[str, Any]) -> None:
    await cut(config)
    config["workflow"]["version"] = 2
    config["eval"]["evaluators"]["answered"]["resume"] = True
    await run(config)
    assert behaviour.asked == ["q1"]


async def test_resume_false_asks_all(config: dict[str, Any]) -> None:
    await cut(config)
    await run(config, override=(("eval.evaluators.answered.resume", "false"),))
    assert sorted(behaviour.asked) == QUESTIONS


async def test_a_question_whose_text_changed_is_asked(config: dict[str, Any]) -> None:
    await cut(config)
    ask(config, [*QUESTIONS[:3], "something else", *QUESTIONS[4:]])
    await run(config)
    assert sorted(behaviour.asked) == ["q1", "something else"]


async def test_repetitions_are_questions_of_their_own(config: dict[str, Any]) -> None:
    behaviour.raises = {"q1": RuntimeError("no route")}
    await run(config, reps=2)
    behaviour.__init__()  # type: ignore[misc]
    output = await run(config, reps=2)
    assert behaviour.asked == ["q1", "q1"]
    assert len(output.eval_input.eval_input_items) == 16


async def test_without_a_journal_nat_does_as_it_does(config: dict[str, Any]) -> None:
    config["eval"]["evaluators"]["answered"]["journal"] = False
    behaviour.raises = {"q0": RuntimeError("no route")}
    output = await run(config)
    assert output.workflow_interrupted
    assert not journal(config).exists()


async def test_the_journal_is_kept_without_being_asked_for(config: dict[str, Any]) -> None:
    del config["eval"]["evaluators"]["answered"]
    await run(config)
    assert journal(config).exists()


@pytest.mark.parametrize("how", ["no dynamo", "config object", "no files"])
async def test_where_no_journal_is_kept(config: dict[str, Any], how: str) -> None:
    del config["eval"]["evaluators"]["answered"]
    if how == "no dynamo":
        config["llms"]["dynamo"] = {"_type": "openai", "model_name": "m"}
    if how == "config object":
        loaded = load_config(written(config))
        await EvaluationRun(EvaluationRunConfig(config_file=loaded)).run_and_evaluate()
    else:
        await run(config, write_output=how != "no files")
    assert not journal(config).exists()


async def test_a_journal_that_can_not_be_kept_stops_nothing(config: dict[str, Any], caplog: Any) -> None:
    config["eval"]["general"]["output"]["cleanup"] = False
    other = Journal(journal(config))
    behaviour.raises = {"q1": RuntimeError("no route")}
    output = await run(config)
    other.close()
    assert "another evaluation is writing" in caplog.text
    assert scores(output)["answered"] == 7 / 8


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("resume", "atuo", "auto, true or false"), ("resum", True, "resume"), ("resume", 3, "auto, true or false")],
)
def test_bad_settings_name_the_field_and_what_is_allowed(field: str, value: Any, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AnsweredConfig(**{field: value})
    assert field in str(caught.value)
    assert repr(value) in str(caught.value)
    assert says in str(caught.value)


def test_another_nat_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    class EvaluationRun:
        async def run_and_evaluate(self) -> None: ...

    module = type("module", (), {"EvaluationRun": EvaluationRun})
    monkeypatch.setitem(keeping.sys.modules, "nat.plugins.eval.runtime.evaluate", module)
    before = dict(vars(EvaluationRun))
    keeping.install()
    assert dict(vars(EvaluationRun)) == before
    assert "not as in NAT 1.9" in caplog.text
