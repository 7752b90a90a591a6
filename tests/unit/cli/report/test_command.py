"""The command: where the page goes, and what it says of what is no run."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from nat_dynamo_plugin.cli.commands import dynamo
from nat_dynamo_plugin.recording.rows import RecordedCall

from .making import message, record, step, workflow, write_recording, write_run


def test_the_page_is_written_for_its_owner_only(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"q1": [step(record()), *workflow(99.0, 101.0)]})
    done = CliRunner().invoke(dynamo, ["report", str(run)])
    assert done.exit_code == 0, done.output
    written = run / "report.html"
    assert done.output.startswith(f"{written} (") and written.stat().st_mode & 0o777 == 0o600
    assert written.read_text().startswith("<!doctype html>")


def test_another_place_and_a_recording(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"q1": [step(record(prefix_id="q1"))]})
    recording = write_recording(tmp_path / "c.jsonl", [RecordedCall("q1", 100.0, 1.0, [message("user", "x")])])
    page = tmp_path / "page.html"
    done = CliRunner().invoke(dynamo, ["report", str(run), "-o", str(page), "--recording", str(recording)])
    assert done.exit_code == 0, done.output
    assert "prompts are not known" not in page.read_text() and not (run / "report.html").exists()


def test_what_is_no_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(dynamo, ["report", str(tmp_path / "none")])
    assert done.exit_code == 1 and "is not a directory" in done.output
    run = write_run(tmp_path / "run", {"q1": []})
    nowhere = CliRunner().invoke(dynamo, ["report", str(run), "-o", str(tmp_path / "no" / "page.html")])
    assert nowhere.exit_code == 1 and "page.html can not be written: No such file or directory" in nowhere.output


def test_more_recordings_than_runs(tmp_path: Path) -> None:
    (tmp_path / "c").touch()
    done = CliRunner().invoke(dynamo, ["report", str(tmp_path), *("--recording", str(tmp_path / "c")) * 2])
    assert done.exit_code == 2 and "2 recordings for 1 runs" in done.output
