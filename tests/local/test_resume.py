"""`nat eval` killed in mid-run and started again: every question once, and the table of a run that nobody disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nat_dynamo_plugin.cli.summary import load_report

ROOT = Path(__file__).parents[2]


def test_a_killed_evaluation_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("nat_dynamo_bfcl")
    ran = subprocess.run(
        [
            sys.executable,
            str(ROOT / "scripts" / "kill_and_resume.py"),
            str(ROOT / "configs" / "eval_bfcl.yml"),
            "--kills=2",
            "--keep",
            str(tmp_path),
            *("--override", "eval.general.dataset.limit", "12"),
            *("--override", "eval.general.max_concurrency", "2"),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"DO_NOT_TRACK": "1", "NAT_TELEMETRY_ENABLED": "false"},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("killed at call") == 2
    tables = {}
    for name in ("undisturbed", "killed"):
        items = json.loads((tmp_path / name / "workflow_output.json").read_text())
        assert len({item["id"] for item in items}) == len(items) == 12
        report = load_report(tmp_path / name)
        assert [row.problem for row in report.metrics] == [None] * len(report.metrics)
        accuracy = next(row.value for row in report.metrics if row.name == "bfcl_accuracy")
        tables[name] = (accuracy, report.questions, sum(figures.calls for figures in report.figures))
    assert tables["killed"] == tables["undisturbed"]
    assert tables["killed"][:2] == (1.0, 12)
