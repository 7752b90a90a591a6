"""Runs, calls and prompts for the tests of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import yaml

from nat_dynamo_plugin.cli.report.misses import Sent
from nat_dynamo_plugin.cli.report.prompts import Prompt
from nat_dynamo_plugin.nat.journal import JOURNAL, Answered, Journal
from nat_dynamo_plugin.recording.rows import RecordedCall, head
from nat_dynamo_plugin.telemetry.record import RECORD_KEY, STEP_NAME, CallRecord

SYSTEM = "You help people with their orders. " * 20


def message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def row(*messages: dict[str, Any], tools: tuple[str, ...] = (), shapes: tuple[str, ...] | None = None) -> RecordedCall:
    return RecordedCall(
        "q", 1.0, 1.0, list(messages), "fine", tools=list(tools),
        tool_shapes=[(100, shape) for shape in shapes or tools],
    )  # fmt: skip


def prompt(*messages: dict[str, Any], tools: tuple[str, ...] = (), shapes: tuple[str, ...] | None = None) -> Prompt:
    return Prompt.of(row(*messages, tools=tools, shapes=shapes))


def record(**known: Any) -> CallRecord:
    return CallRecord(
        **{
            "prefix_id": "q1", "session_id": "q1", "status": 200, "worker_id": 7, "started_at": 100.0,
            "client_total_ms": 100.0, "prompt_tokens": 1000, "cached_tokens": 0, "completion_tokens": 5,
            "server_ttft_ms": 20.0, "server_total_ms": 80.0,
        }
        | known
    )  # fmt: skip


def sent(number: int = 1, prompt: Prompt | None = None, question: str = "q1", **known: Any) -> Sent:
    known = {"prefix_id": question, "session_id": question, "started_at": 100.0 + number} | known
    return Sent(question=question, number=number, record=record(**known), prompt=prompt)


def step(call: CallRecord) -> dict[str, Any]:
    ended = call.started_at + (call.client_total_ms or 0) / 1000
    return {
        "payload": {
            "event_type": "CUSTOM_END", "event_timestamp": ended, "span_event_timestamp": call.started_at,
            "name": STEP_NAME, "UUID": "u", "metadata": {"provided_metadata": {RECORD_KEY: call.to_dict()}},
        }
    }  # fmt: skip


def tool(name: str, start: float, end: float) -> dict[str, Any]:
    return {"payload": {"event_type": "TOOL_END", "name": name, "span_event_timestamp": start, "event_timestamp": end}}


def workflow(start: float, end: float) -> list[dict[str, Any]]:
    return [
        {"payload": {"event_type": f"WORKFLOW_{which}", "event_timestamp": at, "name": "w", "UUID": "w"}}
        for which, at in (("START", start), ("END", end))
    ]


def write_run(
    directory: Path,
    questions: dict[str, list[dict[str, Any]]],
    *,
    config: dict[str, Any] | None = None,
    failures: dict[str, tuple[str, str]] | None = None,
    scores: dict[str, float] | None = None,
    journal: bool = True,
) -> Path:
    """The output folder of an evaluation: the steps of each question, an evaluator's file, the config, the journal."""
    directory.mkdir(parents=True, exist_ok=True)
    failures = failures or {}
    items = [
        {
            "id": name,
            "score": None if name in failures else (scores or {}).get(name, 0.5),
            "reasoning": {"calls": len(steps), "prefix_ids": [name]},
            "error": f"question {name!r} failed ({failures[name][0]}): {failures[name][1]}"
            if name in failures
            else None,
        }
        for name, steps in questions.items()
    ]
    output = {"average_score": 0.5, "eval_output_items": items}
    (directory / "accuracy_output.json").write_text(json.dumps(output))
    rows = [{"id": name, "intermediate_steps": steps} for name, steps in questions.items()]
    (directory / "workflow_output.json").write_text(json.dumps(rows))
    (directory / "config_effective.yml").write_text(yaml.safe_dump(config or {"llms": {"main": {"_type": "dynamo"}}}))
    if journal:
        with_journal = Journal(directory / JOURNAL)
        with_journal.begin("f", len(questions), keep=False)
        for name in questions:
            kind, error = failures.get(name, (None, None))
            with_journal.question(Answered(id=name, asked="a", output="x", failure=kind, error=error))
        with_journal.finish()
        with_journal.close()
    return directory


def write_recording(file: Path, rows: list[RecordedCall]) -> Path:
    file.write_bytes(head([]) + b"".join(msgspec.json.encode(one) + b"\n" for one in rows))
    return file
