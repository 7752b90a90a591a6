"""Reading call records back from trajectories, whatever state they are in."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat.builder.context import Context, ContextState
from nat.data_models.intermediate_step import IntermediateStep

from nat_dynamo_plugin.evaluators.records import (
    MEASURED_ON_ARRIVAL,
    MEASURED_ON_STEPS,
    MEASURED_ON_WORKFLOW,
    Question,
    QuestionFigures,
    is_failed,
    records_from_trajectory,
)
from nat_dynamo_plugin.telemetry.record import ARRIVAL_STEP_NAME, RECORD_KEY, CallRecord


@pytest.mark.parametrize("as_model", [True, False])
def test_record_survives_nat_eval_and_json(build: SimpleNamespace, as_model: bool) -> None:
    record = build.served(function_path=("workflow", "agent"), hints={"osl": 128}, wire=("headers",))
    steps = build.call_steps(record, as_model=as_model)
    problems: list[str] = []
    assert records_from_trajectory(steps, problems) == [record]
    assert records_from_trajectory(build.as_nat_eval_sees(steps), problems) == [record]
    saved = json.loads(json.dumps([s.model_dump() for s in steps], default=str))
    assert records_from_trajectory(saved, problems) == [record]
    assert problems == []


def test_reads_what_the_exporter_pushes(build: SimpleNamespace) -> None:
    nat_steps = pytest.importorskip("nat_dynamo_plugin.telemetry.nat_steps")
    run = ContextState.get().workflow_run_id.set("run")
    seen: list[IntermediateStep] = []
    subscription = Context.get().intermediate_step_manager.subscribe(seen.append)
    record = build.served(started_at=build.T0, client_total_ms=30.0)
    try:
        nat_steps.export(record)
    finally:
        subscription.unsubscribe()
        ContextState.get().workflow_run_id.reset(run)
    assert records_from_trajectory(seen) == [record]


def test_other_steps_are_ignored(build: SimpleNamespace) -> None:
    steps = [
        build.step("CUSTOM_START", build.T0, name="someone else's", uuid="x"),
        build.step("CUSTOM_END", build.T0 + 1, name="someone else's", uuid="x"),
        build.step("LLM_START", build.T0, uuid="y"),
        build.step("LLM_END", build.T0 + 1, uuid="y"),
    ]
    problems: list[str] = []
    assert records_from_trajectory(steps, problems) == []
    assert problems == []


def test_unknown_keys_of_a_newer_version_are_ignored(build: SimpleNamespace) -> None:
    raw = build.served().to_dict() | {"invented_later": {"a": 1}}
    problems: list[str] = []
    assert records_from_trajectory(build.call_steps(raw), problems) == [build.served()]
    assert problems == []


@pytest.mark.parametrize(("raw", "found"), [(None, "nothing"), ("text", "str"), (3, "int"), (["list"], "list")])
def test_call_without_record_is_counted_and_named(build: SimpleNamespace, raw: object, found: str) -> None:
    problems: list[str] = []
    (record,) = records_from_trajectory(build.call_steps(raw), problems)
    assert record == CallRecord()
    assert problems == [f"step 1: expected the call's record under '{RECORD_KEY}', found {found}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt_tokens", "many"),
        ("prompt_tokens", -1),
        ("server_ttft_ms", math.nan),
        ("server_ttft_ms", "nan"),
        ("client_ttft_ms", math.inf),
        ("worker_id", {"decode": 1}),
        ("error", ["a", "list"]),
    ],
)
def test_bad_field_is_dropped_and_the_rest_kept(build: SimpleNamespace, name: str, value: object) -> None:
    raw = build.served().to_dict() | {name: value, "cached_tokens": None}
    problems: list[str] = []
    (record,) = records_from_trajectory(build.call_steps(raw), problems)
    assert record == build.served(**{name: None}, cached_tokens=None)
    assert len(problems) == 1
    assert name in problems[0]


def test_more_cached_than_prompt_tokens_is_not_believed(build: SimpleNamespace) -> None:
    problems: list[str] = []
    call = build.served(prompt_tokens=10, cached_tokens=11)
    (record,) = records_from_trajectory(build.call_steps(call), problems)
    assert record.cached_tokens is None
    assert "11" in problems[0]


def test_a_prompt_that_was_cached_whole_is_believed(build: SimpleNamespace) -> None:
    problems: list[str] = []
    call = build.served(prompt_tokens=10, cached_tokens=10)
    assert records_from_trajectory(build.call_steps(call), problems) == [call]
    assert problems == []


def test_a_number_that_can_not_be_is_as_if_unsaid(build: SimpleNamespace) -> None:
    raw = build.served().to_dict() | {"retry_wait_ms": -1.0, "worker_id": "w" * 100}
    problems: list[str] = []
    (record,) = records_from_trajectory(build.call_steps(raw), problems)
    assert (record.retry_wait_ms, record.worker_id) == (0.0, None)
    quoted = repr("w" * 100)
    assert any(f"worker_id is {quoted[:57]}... (" in problem for problem in problems)
    assert "https://" not in "".join(problems)


def test_a_question_counts_from_its_first_arrival(build: SimpleNamespace) -> None:
    def arrival(at: float) -> IntermediateStep:
        return build.step("CUSTOM_START", at, name=ARRIVAL_STEP_NAME, uuid=str(at))  # type: ignore[no-any-return]

    steps = build.workflow(arrival(build.T0 - 3), arrival(build.T0 - 1), seconds=2.0)
    question = Question.from_trajectory("q", steps)
    assert (question.id, question.started_at, question.ended_at) == ("q", build.T0 - 3, build.T0 + 2)
    assert question.measured_on == MEASURED_ON_ARRIVAL
    late = Question.from_trajectory("q", build.workflow(arrival(build.T0 + 3), seconds=2.0))
    assert (late.started_at, late.measured_on) == (build.T0, MEASURED_ON_WORKFLOW)


@pytest.mark.parametrize("at", [None, True, 0, -1.0, math.inf, "now"])
def test_a_step_without_a_time_is_passed_over(build: SimpleNamespace, at: object) -> None:
    odd = {"payload": {"event_type": "CUSTOM_START", "event_timestamp": at, "name": "odd", "UUID": "o"}}
    question = Question.from_trajectory("q", [odd, *build.workflow(seconds=2.0)])
    assert (question.started_at, question.ended_at) == (build.T0, build.T0 + 2)
    alone = Question.from_trajectory("q", [odd, build.step("TOOL_END", build.T0, name="t")])
    assert (alone.started_at, alone.measured_on) == (None, None)


def test_what_is_said_of_a_workflow_without_a_sound_end(build: SimpleNamespace) -> None:
    cut = Question.from_trajectory("q", build.workflow()[:-1])
    assert (cut.started_at, cut.ended_at) == (build.T0, None)
    assert cut.problems == ("the workflow started and never ended",)
    back = Question.from_trajectory("q", build.workflow(seconds=-1.0))
    assert (back.started_at, back.ended_at) == (None, None)
    assert back.problems == ("the workflow ended before it started: the clock was set back",)


def test_spans_hold_at_their_edges(build: SimpleNamespace) -> None:
    at_once = Question.from_trajectory("q", build.workflow(seconds=0.0))
    assert (at_once.started_at, at_once.ended_at, at_once.problems) == (build.T0, build.T0, ())
    two = [build.step("TOOL_END", build.T0 + after, name="t", uuid=str(after)) for after in (0, 1)]
    measured = Question.from_trajectory("q", two)
    assert (measured.started_at, measured.ended_at) == (build.T0, build.T0 + 1)


def test_call_that_never_ended_is_a_failed_call(build: SimpleNamespace) -> None:
    start, _ = build.call_steps(build.served())
    question = Question.from_trajectory("q", [start, *build.call_steps(build.served())])
    assert [is_failed(call) for call in question.calls] == [False, True]
    figures = QuestionFigures.of(question)
    assert (figures.calls, figures.failed_calls, figures.calls_without_dynamo_data) == (2, 1, 0)
    assert figures.problems == ["step 0: the call started and never ended"]
    assert question.calls[1].error == "the call started and never ended"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_field_names = st.sampled_from([*CallRecord.__dataclass_fields__, "unheard_of"])


@given(raw=_json | st.dictionaries(_field_names, _json, max_size=8))
def test_any_record_is_one_call_with_sound_numbers(build: SimpleNamespace, raw: object) -> None:
    question = Question.from_trajectory("q", build.call_steps(raw))
    (record,) = question.calls
    for name in CallRecord.__dataclass_fields__:
        value = getattr(record, name)
        assert not isinstance(value, float) or (math.isfinite(value) and value >= 0), name
    json.dumps(QuestionFigures.of(question).to_dict(), allow_nan=False)


@given(steps=st.lists(_json | st.fixed_dictionaries({"payload": _json}), max_size=4))
def test_any_saved_trajectory_is_readable(steps: list[object]) -> None:
    Question.from_trajectory("q", steps)


def test_figures_count_and_read_back(build: SimpleNamespace) -> None:
    steps = build.question(
        build.served(worker_id=1, prefix_id="a"),
        build.served(worker_id=1, prefix_id="a"),
        build.served(worker_id=2, prefix_id="b"),
        CallRecord(prefix_id="a", prompt_tokens=5, status=200),
        CallRecord(prefix_id="a", status=529, error="overloaded"),
    )
    figures = QuestionFigures.of(Question.from_trajectory("q", steps))
    assert figures == QuestionFigures(
        calls=5,
        failed_calls=1,
        unpriced_calls=4,
        failures={"529": 1},
        calls_without_dynamo_data=1,
        prefix_ids=["a", "b"],
        workers={"1": 2, "2": 1},
        prompt_tokens=305,
        cached_tokens=150,
        completion_tokens=30,
        started_at=build.T0,
        ended_at=build.T0 + 2,
    )
    reasoning = json.loads(json.dumps({**figures.to_dict(), "statistic": "mean"}))
    assert QuestionFigures.from_reasoning(reasoning) == figures


@pytest.mark.parametrize(
    "reasoning", [None, "free text", {"error": "x"}, {"calls": "nine"}, {"calls": 1, "workers": 3}]
)
def test_foreign_reasoning_has_no_figures(reasoning: object) -> None:
    assert QuestionFigures.from_reasoning(reasoning) is None


class TestQuestionTime:
    def test_outermost_workflow(self, build: SimpleNamespace) -> None:
        inner = [
            build.step("WORKFLOW_START", build.T0 + 1, uuid="inner"),
            build.step("WORKFLOW_END", build.T0 + 9, uuid="inner"),
        ]
        # Replayed steps may come in late, after the outer end.
        steps = [*build.workflow(seconds=5.0), *inner]
        question = Question.from_trajectory("q", steps)
        assert (question.started_at, question.ended_at) == (build.T0, build.T0 + 5)
        assert question.measured_on == MEASURED_ON_WORKFLOW

    def test_unfinished_workflow_has_no_end(self, build: SimpleNamespace) -> None:
        steps = build.question(build.served())[:-1]
        question = Question.from_trajectory("q", steps)
        assert question.ended_at is None
        assert any("never ended" in problem for problem in question.problems)

    def test_clock_set_back(self, build: SimpleNamespace) -> None:
        question = Question.from_trajectory("q", build.workflow(seconds=-3.0))
        assert (question.started_at, question.ended_at) == (None, None)
        assert any("clock" in problem for problem in question.problems)

    def test_saved_without_workflow_steps(self, build: SimpleNamespace) -> None:
        steps = [
            build.step("LLM_END", build.T0 + 1, uuid="a", span_event_timestamp=build.T0),
            build.step("TOOL_END", build.T0 + 4, uuid="b", span_event_timestamp=build.T0 + 2),
        ]
        question = Question.from_trajectory("q", steps)
        assert (question.started_at, question.ended_at) == (build.T0, build.T0 + 4)
        assert question.measured_on == MEASURED_ON_STEPS

    @pytest.mark.parametrize("events", [[], ["LLM_END"]])
    def test_too_little_to_tell(self, build: SimpleNamespace, events: list[str]) -> None:
        question = Question.from_trajectory("q", [build.step(event, build.T0) for event in events])
        assert (question.started_at, question.ended_at, question.measured_on) == (None, None, None)
