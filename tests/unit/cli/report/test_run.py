"""What is read of a run, wherever it stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nat_dynamo_plugin.cli.folder import ReportError
from nat_dynamo_plugin.cli.report.run import load
from nat_dynamo_plugin.evaluators.failures import Failure
from nat_dynamo_plugin.nat.journal import JOURNAL, Journal
from nat_dynamo_plugin.recording.rows import RecordedCall, RecordingError

from .making import SYSTEM, message, record, step, tool, workflow, write_recording, write_run


def steps(name: str, at: float, **known: object) -> list[dict[str, object]]:
    calls = [record(prefix_id=name, session_id=name, started_at=at + n, **known) for n in (1.0, 0.0)]
    return [*map(step, calls), tool("ls", at + 0.5, at + 0.75), *workflow(at - 0.5, at + 2)]


def test_questions_calls_and_tools_in_their_order(tmp_path: Path) -> None:
    run = load(write_run(tmp_path / "one", {"q2": steps("q2", 200.0), "q1": steps("q1", 100.0)}))
    assert run.name == "one" and [asked.id for asked in run.questions] == ["q1", "q2"]
    first = run.questions[0]
    assert [(call.number, call.record.started_at) for call in first.calls] == [(1, 100.0), (2, 101.0)]
    assert [(one.name, one.started_at, one.ended_at) for one in first.tools] == [("ls", 100.5, 100.75)]
    assert (first.started_at, first.ended_at, first.seconds) == (99.5, 102.0, 2.5)
    assert run.scores == {"accuracy": {"q1": 0.5, "q2": 0.5}}
    assert any("record: calls.jsonl" in note for note in run.notes)


def test_failures_as_the_journal_tells_them_or_else_the_evaluators(tmp_path: Path) -> None:
    for journal in (True, False):
        folder = write_run(
            tmp_path / str(journal), {"q1": steps("q1", 100.0), "q2": []},
            failures={"q2": ("503", "busy (really)")}, journal=journal,
        )  # fmt: skip
        run = load(folder)
        assert {asked.id: asked.failure for asked in run.questions} == {
            "q1": None,
            "q2": Failure("503", "busy (really)"),
        }


def test_calls_out_of_the_journal_where_nat_kept_no_steps(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"q1": [], "q2": []})
    (folder / JOURNAL).unlink()
    journal = Journal(folder / JOURNAL)
    journal.begin("f", 2, keep=False)
    for name, at in (("q2", 200.0), ("q1", 100.0), ("gone", 300.0)):
        journal.call("a", record(prefix_id=name, started_at=at).to_dict())
    journal.close()
    run = load(folder)
    assert [(asked.id, asked.started_at, len(asked.calls)) for asked in run.questions] == [
        ("q1", 100.0, 1), ("q2", 200.0, 1), ("gone", 300.0, 1)
    ]  # fmt: skip


def test_prompts_come_from_the_recording_that_the_config_names(tmp_path: Path) -> None:
    rows = [RecordedCall("q1", at, 1.0, [message("system", SYSTEM)]) for at in (100.0, 101.0)]
    file = write_recording(tmp_path / "calls.jsonl", rows)
    questions = {"q1": steps("q1", 100.0), "q2": steps("q2", 100.0)}
    for record_ in (str(file), {"file": str(file)}):
        run = load(write_run(tmp_path / "run", questions, config={"llms": {"main": {"record": record_}}}))
        assert run.recorded == 2
        assert [call.prompt is None for call in run.calls] == [False, False, True, True]
        assert "2 of 4 calls have their prompt in the recording" in run.notes
    assert load(write_run(tmp_path / "other", questions), file).recorded == 2


def test_a_recording_that_is_gone_is_a_note_and_one_that_was_asked_for_an_error(tmp_path: Path) -> None:
    config = {"llms": {"main": {"record": str(tmp_path / "gone.jsonl")}}}
    folder = write_run(tmp_path / "run", {"q1": steps("q1", 100.0)}, config=config)
    assert any("gone.jsonl" in note for note in load(folder).notes)
    with pytest.raises(RecordingError):
        load(folder, tmp_path / "gone.jsonl")


def test_a_score_is_the_mean_of_a_questions_repetitions(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"q1": []})
    items = [{"id": "q1", "score": score} for score in (1.0, 0.0, None, float("nan"))]
    (folder / "accuracy_output.json").write_text(json.dumps({"average_score": 0.5, "eval_output_items": items}))
    assert load(folder).scores == {"accuracy": {"q1": 0.5}}


def test_a_run_without_calls_says_what_to_set(tmp_path: Path) -> None:
    assert any("workflow_output_step_filter" in note for note in load(write_run(tmp_path, {"q1": []})).notes)


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(ReportError):
        load(tmp_path / "nothing")
