"""Reads what an evaluation left: its output folder, and the recording if there is one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nat_dynamo_plugin.cli.folder import WORKFLOW_OUTPUT, job_directory, load_config, load_json, mapping
from nat_dynamo_plugin.cli.report.misses import Sent
from nat_dynamo_plugin.cli.report.prompts import Prompt
from nat_dynamo_plugin.cli.summary import EvalReport, load_report
from nat_dynamo_plugin.evaluators.failures import Failure
from nat_dynamo_plugin.evaluators.records import Question
from nat_dynamo_plugin.nat.journal import JOURNAL, Entries, read
from nat_dynamo_plugin.recording import rows
from nat_dynamo_plugin.secrets import redacted, remember_config
from nat_dynamo_plugin.telemetry.record import RECORD_KEY, STEP_NAME

_SAID = re.compile(r"failed \((?P<kind>[^)]{1,80})\): (?P<error>.*)", re.DOTALL)
"""How an evaluator says that a question failed (`evaluators.evaluate`)."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A run of a tool.

    Attributes:
        name: of the tool.
        started_at: seconds since the epoch.
        ended_at: likewise.
    """

    name: str
    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question of the run.

    Attributes:
        id: the dataset's.
        calls: in the order in which they began.
        tools: likewise.
        failure: why it has no answer.
        started_at: seconds since the epoch, of its first call if nobody says more.
        ended_at: likewise, of its last call.
    """

    id: str
    calls: tuple[Sent, ...] = ()
    tools: tuple[Tool, ...] = ()
    failure: Failure | None = None
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def seconds(self) -> float | None:
        """From start to end; `None` if not known."""
        return None if self.started_at is None or self.ended_at is None else self.ended_at - self.started_at


@dataclass(slots=True, kw_only=True)
class Run:
    """An evaluation.

    Attributes:
        name: of the run, for the page.
        summary: the table's rows and counts.
        config: the effective config; empty if it was not kept.
        questions: in the order in which they began.
        scores: for each evaluator the score of each question by id.
        notes: what is not known, and why.
        recorded: how many calls have their prompt.
    """

    name: str
    summary: EvalReport
    config: Mapping[str, Any]
    questions: list[Asked] = field(default_factory=list)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    recorded: int = 0

    @property
    def calls(self) -> list[Sent]:
        """Of all questions."""
        return [call for asked in self.questions for call in asked.calls]


def load(directory: Path, recording: Path | None = None) -> Run:
    """Read a run.

    Args:
        directory: the `eval.general.output.dir` of a `nat eval`.
        recording: what `record:` wrote; otherwise the one that the run's config names is used, if it is there.

    Raises:
        ReportError: there is no run, or a file of it can not be read.
        RecordingError: the recording that was asked for can not be read.
    """
    summary = load_report(directory)
    directory = job_directory(directory)
    config = load_config(directory / "config_effective.yml")
    remember_config(config)
    run = Run(name=directory.name, summary=summary, config=config if isinstance(config, Mapping) else {})
    prompts = _prompts(run, recording)
    journal = read(directory / JOURNAL)
    found = _from_trajectories(directory, config) or _from_journal(journal)
    items = _items(summary)
    failures = _failures(journal, items)
    if not any(question.calls for question, _ in found):
        found = _from_calls(journal, items)
    asked = [_asked(question, tools, failures, prompts) for question, tools in found]
    seen = {one.id for one in asked}
    asked += [Asked(id=name, failure=failure) for name, failure in failures.items() if name not in seen]
    run.questions = sorted(asked, key=lambda one: one.started_at or float("inf"))
    run.scores = {name: {str(k): v for k, v in _scores(of_one).items()} for name, of_one in items.items()}
    calls = run.calls
    run.recorded = sum(call.prompt is not None for call in calls)
    run.notes += _what_is_missing(run, calls)
    return run


def _asked(
    question: Question, tools: Iterable[Tool], failures: Mapping[str, Failure], prompts: Mapping[Any, Prompt]
) -> Asked:
    name = str(question.id)
    records = sorted(question.calls, key=lambda call: call.started_at)
    calls = tuple(
        Sent(question=name, number=n, record=record, prompt=prompts.get((record.prefix_id, record.started_at)))
        for n, record in enumerate(records, start=1)
    )
    timed = [call for call in calls if call.record.started_at]
    return Asked(
        id=name,
        calls=calls,
        tools=tuple(sorted(tools, key=lambda tool: tool.started_at)),
        failure=failures.get(name),
        started_at=question.started_at or min((call.record.started_at for call in timed), default=None),
        ended_at=question.ended_at or max((call.ended_at for call in timed), default=None),
    )


def _from_trajectories(directory: Path, config: Any) -> list[tuple[Question, list[Tool]]]:
    path = directory / WORKFLOW_OUTPUT
    items = load_json(path) if path.is_file() else []
    dataset = mapping(config, "eval", "general", "dataset")
    key = mapping(dataset, "structure").get("trajectory_key", "intermediate_steps")
    return [
        _read(item.get(dataset.get("id_key", "id")), item[key])
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, dict) and isinstance(item.get(key), list)
    ]


def _from_journal(journal: Entries) -> list[tuple[Question, list[Tool]]]:
    return [_read(one.id, one.trajectory) for one in journal.questions.values()]


def _from_calls(journal: Entries, items: Mapping[str, list[Mapping[str, Any]]]) -> list[tuple[Question, list[Tool]]]:
    """Questions from the journal's calls alone: NAT keeps no step that the evaluation's filter does not name."""
    owners = {
        str(prefix): str(item.get("id"))
        for of_one in items.values()
        for item in of_one
        for prefix in _list(mapping(item, "reasoning").get("prefix_ids"))
    }
    steps: dict[str, list[Any]] = defaultdict(list)
    for call in journal.calls:
        prefix = str(call.get("prefix_id"))
        payload = {"name": STEP_NAME, "event_type": "CUSTOM_END", "metadata": {"provided_metadata": {RECORD_KEY: call}}}
        steps[owners.get(prefix, prefix)].append({"payload": payload})
    return [_read(name, of_one) for name, of_one in steps.items()]


def _read(name: Any, steps: list[Any]) -> tuple[Question, list[Tool]]:
    return Question.from_trajectory(name, steps), [tool for step in steps if (tool := _tool(step))]


def _tool(step: Any) -> Tool | None:
    payload = mapping(step, "payload")
    start, end = payload.get("span_event_timestamp"), payload.get("event_timestamp")
    if payload.get("event_type") != "TOOL_END" or not isinstance(start, float) or not isinstance(end, float):
        return None
    return Tool(str(payload.get("name")), start, end)


def _items(summary: EvalReport) -> dict[str, list[Mapping[str, Any]]]:
    """Each evaluator's rows."""
    return {
        row.name: [item for item in _list(load_json(row.file).get("eval_output_items")) if isinstance(item, dict)]
        for row in summary.metrics
    }


def _scores(items: list[Mapping[str, Any]]) -> dict[str, float]:
    """The mean score of each question; one may be asked several times."""
    found: dict[str, list[float]] = defaultdict(list)
    for item in items:
        score = item.get("score")
        if isinstance(score, int | float) and score == score:
            found[str(item.get("id"))].append(float(score))
    return {name: sum(values) / len(values) for name, values in found.items()}


def _failures(journal: Entries, items: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, Failure]:
    """Failed questions: as the journal says, else as the evaluators do."""
    found: dict[str, Failure] = {}
    for of_one in items.values():
        for item in of_one:
            if said := _SAID.search(str(item.get("error") or "")):
                found.setdefault(str(item.get("id")), Failure(said["kind"], redacted(said["error"])))
    for one in journal.questions.values():
        if one.failure is not None:
            found[one.id] = Failure(one.failure, redacted(one.error or ""))
    return found


def _prompts(run: Run, recording: Path | None) -> dict[tuple[str | None, float], Prompt]:
    """Recorded prompts by question and start."""
    files = [recording] if recording else list(_recordings(run.config))
    found: dict[tuple[str | None, float], Prompt] = {}
    for file in files:
        try:
            calls, rules = rows.read(file)
        except rows.RecordingError as error:
            if recording:
                raise
            run.notes.append(f"the recording of this run can not be used: {error}")
            continue
        if rules:
            run.notes.append("what the recording's rules redact is the same in all prompts for this report")
        found.update(((row.question, row.started_s), Prompt.of(row)) for row in calls)
    return found


def _recordings(config: Any) -> Iterable[Path]:
    for llm in mapping(config, "llms").values():
        record = llm.get("record") if isinstance(llm, Mapping) else None
        file = record.get("file") if isinstance(record, Mapping) else record
        if isinstance(file, str):
            yield Path(file)


def _what_is_missing(run: Run, calls: list[Sent]) -> Iterable[str]:
    if not calls:
        yield (
            "no LLM call is known: let `eval.general.output.workflow_output_step_filter` name CUSTOM_END and TOOL_END, "
            "so that the run keeps them"
        )
        return
    if not run.recorded:
        yield "prompts are not known: with `record: calls.jsonl` in the LLM's config this report says where they differ"
    elif run.recorded < len(calls):
        yield f"{run.recorded:,} of {len(calls):,} calls have their prompt in the recording"
    if not any(asked.tools for asked in run.questions):
        yield "no tool's time is known: TOOL_END in `workflow_output_step_filter` keeps them"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
