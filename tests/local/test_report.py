"""`nat dynamo report` about evaluations on an embedded Dynamo: a planted clock is found, and gone when it is moved."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

AGENT = Path(__file__).parent / "clock_agent.py"
QUESTIONS = ["Where is my order?", "My parcel is broken.", "I want my money back."]


def run(folder: Path, clock: str) -> Path:
    """An evaluation in a folder of its own; its output folder."""
    folder.mkdir()
    (folder / "questions.json").write_text(
        json.dumps([{"id": f"q{n}", "question": text, "answer": ""} for n, text in enumerate(QUESTIONS)])
    )
    config = {
        "llms": {
            "main": {
                "_type": "dynamo",
                "local": {"workers": 1, "kv_blocks": 4096, "block_size": 16, "speedup": 50},
                "max_tokens": 8,
                "record": "calls.jsonl",
            }
        },
        "workflow": {"_type": "clock_agent", "llm_name": "main", "clock": clock},
        "eval": {
            "general": {
                "max_concurrency": 1,
                "output": {"dir": "run", "workflow_output_step_filter": ["CUSTOM_END", "TOOL_END"]},
                "dataset": {"_type": "json", "file_path": "questions.json"},
            },
            "evaluators": {"kv_reuse": {"_type": "dynamo_kv_reuse"}},
        },
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    command(folder, str(AGENT), "eval", "--config_file", "config.yml")
    return folder / "run"


def command(folder: Path, *arguments: str) -> str:
    ran = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, env=os.environ)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def words(page: Path) -> str:
    text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def test_a_planted_clock_is_found_and_named(tmp_path: Path) -> None:
    first, last = run(tmp_path / "first", "first"), run(tmp_path / "last", "last")
    command(tmp_path / "first", "-m", "nat_dynamo_plugin.cli", "report", str(first))
    said = words(first / "report.html")
    assert "All 3 questions were answered, and no LLM call failed." in said
    assert "1. A clock in the system message 8 calls of 3 questions computed" in said
    assert "2 of them are first calls" in said
    assert "Move it out of the system message to the end of the last message" in said
    assert re.search(r"before: It is 2026-11-24 00:0 \d \. Answer the customer", said)

    recordings = [str(tmp_path / clock / "calls.jsonl") for clock in ("first", "last")]
    options = ["-o", "both.html", "--recording", recordings[0], "--recording", recordings[1]]
    command(tmp_path / "last", "-m", "nat_dynamo_plugin.cli", "report", str(first), str(last), *options)
    said = words(tmp_path / "last" / "both.html")
    assert "run against first/run" in said.replace("last/run", "run")
    assert re.search(r"KV reuse \S+ % \S+ % \+\S+ points \(\+\S+ to \+\S+\) 3 ▲ better", said)
    assert "workflow.clock first last" in said
    assert said.count("A clock in the system message") == 1
