"""The summary of a finished evaluation: what it reads, what it prints, how it fails."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from nat_dynamo_plugin.cli.summary import ReportError, load_report, main, print_report
from nat_dynamo_plugin.nat.journal import JOURNAL, Answered, Journal
from nat_dynamo_plugin.telemetry.record import RECORD_KEY, STEP_NAME, CallRecord


def figures(**changed: Any) -> dict[str, Any]:
    known = {
        "calls": 3,
        "failed_calls": 0,
        "calls_without_dynamo_data": 0,
        "prefix_ids": ["a"],
        "workers": {"1": 2, "2": 1},
        "prompt_tokens": 1500,
        "cached_tokens": 1000,
        "completion_tokens": 60,
        "started_at": 100.0,
        "ended_at": 104.0,
        "problems": [],
    }
    return known | changed


def write_evaluator(directory: Path, name: str, average: Any, reasonings: list[Any], **metric: Any) -> None:
    output: dict[str, Any] = {
        "average_score": average,
        "eval_output_items": [
            {"id": n, "score": average, "reasoning": reasoning, "error": None} for n, reasoning in enumerate(reasonings)
        ],
    }
    if metric:
        output["metric"] = metric
    (directory / f"{name}_output.json").write_text(json.dumps(output))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """An output directory with a Dynamo metric and a foreign evaluator, without trajectories."""
    items = [figures(), figures(prefix_ids=["b"], started_at=102.0, ended_at=110.0, failed_calls=1)]
    write_evaluator(
        tmp_path, "reuse", 0.6667, items, unit="share", statistic="mean", meaning="prompt tokens taken from KV cache"
    )
    write_evaluator(tmp_path, "accuracy", 1.0, ["fine", "fine"])
    return tmp_path


def printed(directory: Path, width: int = 80) -> str:
    out = io.StringIO()
    print_report(load_report(directory), Console(file=out, width=width))
    return out.getvalue()


def test_prompts_by_version_if_calls_have_one(finished: Path) -> None:
    assert "prompt v1" not in printed(finished)
    one = {"v1": {"calls": 2, "failed": 0, "prompt_tokens": 80, "cached_tokens": 60}}
    write_evaluator(finished, "reuse", 0.5, [figures(prompt_versions=one), figures(prompt_versions=one)], unit="share")
    [line] = [line for line in printed(finished, 120).splitlines() if "prompt v1" in line]
    assert "4 calls (0 failed), 75.0 % of 160 prompt tokens cached" in line


def test_rows_counts_and_files(finished: Path) -> None:
    text = printed(finished)
    assert "2 questions" in text
    for row in (("reuse", "66.7 %", "mean", "KV cache"), ("accuracy", "1", "mean", "average score")):
        line = next(line for line in text.splitlines() if row[0] in line and "/" not in line)
        assert all(cell in line for cell in row), line
    assert "6 (1 failed, 0 answered without Dynamo data)" in text
    assert "2 distinct" in text
    assert "2 used (2 to 4 calls each)" in text
    assert "3,000 prompt (2,000 cached), 120 completion" in text
    assert "10.00 s" in text
    assert str(finished / "reuse_output.json") in text.replace("\n", "")


def test_counts_prefer_the_trajectories(finished: Path) -> None:
    record = CallRecord(worker_id=9, prefix_id="z", status=200).to_dict()
    end = {
        "event_type": "CUSTOM_END",
        "event_timestamp": 5.0,
        "name": STEP_NAME,
        "UUID": "u",
        "metadata": {"provided_metadata": {RECORD_KEY: record}},
    }
    rows = [{"id": 1, "steps": [{"payload": end}]}]
    (finished / "workflow_output.json").write_text(json.dumps(rows))
    dataset = {"structure": {"trajectory_key": "steps"}}
    (finished / "config_effective.yml").write_text(yaml.safe_dump({"eval": {"general": {"dataset": dataset}}}))
    report = load_report(finished)
    assert [(f.calls, f.workers, f.prefix_ids) for f in report.figures] == [(1, {"9": 1}, ["z"])]
    assert str(finished / "workflow_output.json") in printed(finished).replace("\n", "")


def test_rows_follow_the_config(finished: Path) -> None:
    assert [row.name for row in load_report(finished).metrics] == ["accuracy", "reuse"]
    (finished / "config_effective.yml").write_text(
        yaml.safe_dump({"eval": {"evaluators": {"reuse": {}, "accuracy": {}}}}, sort_keys=False)
    )
    assert [row.name for row in load_report(finished).metrics] == ["reuse", "accuracy"]


@pytest.mark.parametrize(("local", "said"), [({"workers": 2}, True), (None, False)])
def test_simulated_engines_are_named(finished: Path, local: Any, said: bool) -> None:
    config = {"llms": {"judge": {"type": "openai"}, "main": {"type": "dynamo", "local": local}}}
    (finished / "config_effective.yml").write_text(yaml.safe_dump(config))
    assert ("Simulated engines" in printed(finished)) is said


def test_missing_average_is_told_apart_from_zero(finished: Path) -> None:
    write_evaluator(
        finished, "ttft", None, [figures()], unit="ms", statistic="p95", meaning="time", problem="no average: 0 of 1"
    )
    write_evaluator(finished, "zero", 0.0, [figures()], unit="share", statistic="mean", meaning="share")
    text = printed(finished)
    assert "no data" in next(line for line in text.splitlines() if "ttft" in line)
    assert "0.0 %" in next(line for line in text.splitlines() if "zero" in line)
    assert "note: ttft: no average: 0 of 1" in text


def test_problems_in_records_are_shown(finished: Path) -> None:
    write_evaluator(finished, "a", 1.0, [figures(problems=["step 3: odd"])] * 3, unit="share")
    assert "3 problems in the call records, the first: step 3: odd" in printed(finished)


def test_without_any_counts(tmp_path: Path) -> None:
    write_evaluator(tmp_path, "accuracy", 0.5, ["text"])
    assert "not known" in printed(tmp_path)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_table_fits(finished: Path, width: int) -> None:
    write_evaluator(
        finished, "an_evaluator_with_quite_a_long_name", 12345.678, [figures()], unit="ms", statistic="p95",
        meaning="a meaning that takes more words than one line has room for, by far",
    )  # fmt: skip
    table = [line for line in printed(finished, width).splitlines() if line and line[0] in "┏┃┡│├└"]
    assert len(table) > 5
    assert len({len(line) for line in table}) == 1
    assert len(table[0]) <= width
    assert any("12,345.7 ms" in line for line in table)


def test_only_job_is_taken_and_several_are_named(tmp_path: Path) -> None:
    for job in ("job_1", "job_2"):
        (tmp_path / "jobs" / job).mkdir(parents=True)
    write_evaluator(tmp_path / "jobs" / "job_1", "accuracy", 1.0, ["x"])
    assert load_report(tmp_path).directory == tmp_path / "jobs" / "job_1"
    write_evaluator(tmp_path / "jobs" / "job_2", "accuracy", 1.0, ["x"])
    with pytest.raises(ReportError, match="2 runs"):
        load_report(tmp_path)


class TestErrors:
    def test_no_such_directory(self, tmp_path: Path) -> None:
        with pytest.raises(ReportError, match="not a directory"):
            load_report(tmp_path / "nowhere")

    def test_no_finished_eval(self, tmp_path: Path) -> None:
        (tmp_path / "workflow_output.json").write_text("[]")
        with pytest.raises(ReportError, match="finished"):
            load_report(tmp_path)

    @pytest.mark.parametrize("name", ["reuse_output.json", "workflow_output.json"])
    def test_cut_off_file(self, finished: Path, name: str) -> None:
        (finished / name).write_text('[{"average_')
        with pytest.raises(ReportError, match=f"{name}.*interrupted"):
            load_report(finished)

    def test_foreign_json_files_are_passed_over(self, finished: Path) -> None:
        (finished / "inference_output.json").write_text("[1, 2]")
        assert len(load_report(finished).metrics) == 2

    def test_unreadable_config_only_costs_its_hints(self, finished: Path) -> None:
        (finished / "config_effective.yml").write_text("a: [1,")
        assert len(load_report(finished).metrics) == 2

    def test_exit_codes(self, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([str(finished)]) == 0
        assert "66.7 %" in capsys.readouterr().out
        assert main([str(finished / "nowhere")]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")


def test_piped_to_an_ascii_terminal(finished: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nat_dynamo_plugin.cli.summary", str(finished)],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert b"66.7 %" in done.stdout
    assert b"\x1b" not in done.stdout
    assert str(finished / "reuse_output.json").encode() in done.stdout


def call(**fields: Any) -> list[dict[str, Any]]:
    end = {
        "event_type": "CUSTOM_END",
        "event_timestamp": 5.0,
        "name": STEP_NAME,
        "UUID": "u",
        "metadata": {"provided_metadata": {RECORD_KEY: CallRecord(**fields).to_dict()}},
    }
    return [{"payload": end}]


class TestFailures:
    def test_failed_questions_and_calls_are_counted_by_kind(self, finished: Path) -> None:
        items = [figures(failed_calls=2, failures={"503": 2}), figures(failed_calls=1, failures={"cut_short": 1})]
        write_evaluator(finished, "ttft", 5.0, items, unit="ms", failures={"503": 2, "cut_short": 1})
        (finished / "reuse_output.json").unlink()
        text = printed(finished)
        assert "2 (3 failed, in no average: 503 2, cut_short 1)" in text
        assert "6 (3 failed" in text
        assert "failed calls 503 2, cut_short 1" in text

    def test_none_failed(self, finished: Path) -> None:
        assert "2 (0 failed)" in printed(finished)

    def test_a_run_that_was_cut_shows_what_was_done(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / JOURNAL)
        journal.begin("f", 9, keep=True)
        for n in range(4):
            journal.call("x", CallRecord(status=200).to_dict())
            if n < 3:
                failure = "503" if n == 1 else None
                record = {"status": 503, "error": "down", "error_type": "503"} if failure else {"worker_id": 1}
                journal.question(Answered(id=str(n), asked="x", output="a", trajectory=call(**record), failure=failure))
        journal.close()
        text = " ".join(printed(tmp_path).split())
        assert "2 of 9 questions are answered" in text
        assert "3 (1 failed, in no average: 503 1)" in text
        assert "3 (1 failed, 0 answered without Dynamo data)" in text
        assert "1 LLM call more" in text
        assert JOURNAL in text
        assert main([str(tmp_path)]) == 0

    def test_the_time_between_two_runs_is_nobodys(self, tmp_path: Path) -> None:
        items = [
            figures(started_at=100.0, ended_at=104.0),
            figures(started_at=102.0, ended_at=103.0),
            figures(started_at=900.0, ended_at=905.0),
        ]
        write_evaluator(tmp_path, "reuse", 0.5, items)
        assert load_report(tmp_path).wall_time_s == 805.0
        for _ in range(2):
            journal = Journal(tmp_path / JOURNAL)
            journal.begin("f", 3, keep=True)
            journal.close()
        assert load_report(tmp_path).wall_time_s == 9.0
        assert "9.00 s, in which questions were under way, in 2 runs" in printed(tmp_path)

    def test_a_later_run_that_was_cut_is_told(self, finished: Path) -> None:
        journal = Journal(finished / JOURNAL)
        journal.begin("f", 9, keep=True)
        journal.question(Answered(id="a", asked="x", output="a"))
        assert "a later run in this folder was cut: 1 of 9" in " ".join(printed(finished).split())
        journal.finish()
        journal.close()
        assert "was cut" not in printed(finished)
