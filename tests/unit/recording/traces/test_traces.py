"""Traces without content, as load."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from nat_dynamo_plugin.cli.replay.schedule import plan
from nat_dynamo_plugin.recording.rows import RecordedCall, RecordingError, head
from nat_dynamo_plugin.recording.traces.load import is_recording, read_trace
from nat_dynamo_plugin.recording.traces.mooncake import BLOCK_TOKENS
from nat_dynamo_plugin.recording.traces.shape import Fit, Shape, rows_of


def text(row: RecordedCall) -> list[str]:
    [message] = row.messages
    assert message["role"] == "user"
    return str(message["content"]).split()


def shared(one: RecordedCall, other: RecordedCall) -> int:
    """Words that two prompts have in common from the start."""
    both = list(zip(text(one), text(other), strict=False))
    return next((k for k, (a, b) in enumerate(both) if a != b), len(both))


def request(at_ms: float, tokens: int, ids: list[int], answer: int = 20) -> str:
    return json.dumps({"timestamp": at_ms, "input_length": tokens, "output_length": answer, "hash_ids": ids})


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace.jsonl"
    lines = [
        request(0, 700, [1, 2]),  # a conversation: one whole block, one in part
        request(0, 600, [8, 9]),  # another one
        request(3000, 1300, [1, 3, 4], 30),  # begins with the first one's whole block
        request(4000, 600, [1, 5]),  # is shorter than what it would continue
        request(9000, 2000, [1, 3, 6, 7]),  # continues the one of 1300 tokens, whose whole blocks are 1 and 3
    ]
    file.write_text("\n".join(lines) + "\n")
    return file


def test_mooncakes_conversations_are_found_by_prefixes(trace: Path) -> None:
    questions = plan(read_trace(trace, Fit()))
    assert sorted(len(question.calls) for question in questions) == [1, 1, 3]
    [long] = [question for question in questions if len(question.calls) == 3]
    assert [call.gap_s for call in long.calls] == pytest.approx([0.0, 3.0, 6.0], abs=1e-3)
    assert [call.after for call in long.calls] == [(), (0,), (0, 1)]


def test_mooncakes_prompts_are_as_long_and_share_what_they_shared(trace: Path) -> None:
    first, second, third, other, short = read_trace(trace, Fit())
    assert [first.prompt_tokens, second.prompt_tokens, third.prompt_tokens] == [700, 1300, 2000]
    assert second.completion_tokens == 30
    assert [len(text(row)) for row in (first, second, third, other)] == [700, 1300, 2000, 600]
    assert BLOCK_TOKENS <= shared(first, second) < BLOCK_TOKENS + 20
    assert 2 * BLOCK_TOKENS <= shared(second, third) < 2 * BLOCK_TOKENS + 20
    assert shared(first, short) >= BLOCK_TOKENS
    assert shared(first, other) < 5


def test_lengths_fit_the_servers_tokenizer_and_scale(trace: Path) -> None:
    row = read_trace(trace, Fit(tokens_per_word=2.0, scale=0.5))[0]
    assert (row.prompt_tokens, row.completion_tokens, len(text(row))) == (350, 10, 175)
    assert len({row.question for row in read_trace(trace, Fit(questions=2))}) == 2


def test_long_pauses_are_cut(trace: Path) -> None:
    [long] = [one for one in plan(read_trace(trace, Fit(longest_pause_s=4.0))) if len(one.calls) == 3]
    assert [call.gap_s for call in long.calls] == pytest.approx([0.0, 3.0, 4.0], abs=1e-3)


def test_calls_of_one_moment_do_not_wait_for_each_other(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text("\n".join([request(5, 600, [1, 2]), request(5, 1200, [1, 3, 4]), request(5, 1800, [1, 3, 5, 6])]))
    [question] = plan(read_trace(file, Fit()))
    assert [call.after for call in question.calls] == [(), (0,), (0, 1)]


def test_what_is_no_trace_is_named(trace: Path, tmp_path: Path) -> None:
    with trace.open("a") as file:
        file.write('{"timestamp": 1}\n')
    with pytest.raises(RecordingError, match=r"trace\.jsonl, line 6: .*input_length"):
        read_trace(trace, Fit())
    recording = tmp_path / "calls.jsonl"
    recording.write_bytes(head([]))
    assert is_recording(recording) and not is_recording(trace)
    with pytest.raises(RecordingError, match=r"calls\.jsonl: is no trace: .*hash_ids.*intermediate_steps"):
        read_trace(recording, Fit())
    other = tmp_path / "other.json"
    other.write_text('[{"request_number": 0}]')
    with pytest.raises(RecordingError, match=r"other\.json: is no profiler trace of NAT: KeyError: 'intermediate_"):
        read_trace(other, Fit())
    other.write_text("[]")
    with pytest.raises(RecordingError, match=r"other\.json: the trace holds no call"):
        read_trace(other, Fit())
    other.write_text("[")
    with pytest.raises(RecordingError, match="no profiler trace"):
        read_trace(other, Fit())


def steps(calls: list[tuple[float, float, Any, int]]) -> list[Any]:
    """Steps of NAT's own, as a workflow that makes these calls leaves them."""
    from nat.data_models.intermediate_step import (
        IntermediateStep,
        IntermediateStepPayload,
        IntermediateStepType,
        StreamEventData,
        TraceMetadata,
        UsageInfo,
    )
    from nat.data_models.invocation_node import InvocationNode
    from nat.data_models.token_usage import TokenUsageBaseModel

    found = []
    for number, (started_s, ended_s, prompt, tokens) in enumerate(calls):
        common: dict[str, Any] = {"UUID": f"u{number}", "name": "model"}
        start = IntermediateStepPayload(
            event_type=IntermediateStepType.LLM_START,
            event_timestamp=started_s,
            data=StreamEventData(input=prompt),
            metadata=TraceMetadata(chat_inputs=prompt) if isinstance(prompt, list) else None,
            **common,
        )
        usage = UsageInfo(token_usage=TokenUsageBaseModel(prompt_tokens=tokens, completion_tokens=7 + number))
        end = IntermediateStepPayload(
            event_type=IntermediateStepType.LLM_END,
            event_timestamp=ended_s,
            span_event_timestamp=started_s,
            usage_info=usage,
            **common,
        )
        node = InvocationNode(function_name="agent", function_id="1")
        found += [IntermediateStep(parent_id="root", function_ancestry=node, payload=p) for p in (start, end)]
    return found


def profiled(requests: list[list[Any]], folder: Path) -> Path:
    """The file that NAT's own profiler writes of these."""
    from nat.data_models.profiler import ProfilerConfig
    from nat.plugins.profiler.profile_runner import ProfilerRunner

    asyncio.run(ProfilerRunner(ProfilerConfig(), folder).run(requests))
    return folder / "all_requests_profiler_traces.json"


def message(role: str, content: str, name: str) -> dict[str, Any]:
    return {"type": role, "content": content, "id": name, "response_metadata": {"at": name}}


def test_nats_profiler_traces_are_load(tmp_path: Path) -> None:
    system = message("system", "s" * 3999, "1")
    ask, other = message("human", "a" * 400, "2"), message("human", "b" * 400, "3")
    results = [message("tool", "c" * 2000, "4"), message("tool", "d" * 2000, "5")]
    first = steps([(100.0, 101.0, [system, ask], 1100), (103.0, 104.0, [system, ask, results[0]], 1600)])
    second = steps([(101.5, 103.5, [system | {"id": "9"}, other, results[1]], 1600)])
    file = profiled([first, second], tmp_path)
    rows = read_trace(file, Fit())
    assert [(row.question, row.prompt_tokens, row.completion_tokens) for row in rows] == [
        ("r0", 1100, 7),
        ("r0", 1600, 8),
        ("r1", 1600, 7),
    ]
    one, two = plan(rows)
    assert [call.gap_s for call in one.calls] == pytest.approx([0.0, 2.0], abs=1e-3)
    assert two.at_s == pytest.approx(1.5)
    per_word = [shared(rows[0], rows[1]), shared(rows[0], rows[2])]
    assert 1000 <= per_word[0] <= 1100  # the whole of the first prompt, but for the end of a block
    assert 900 <= per_word[1] <= 1030  # the system prompt, whatever its message's id


def test_a_profiler_trace_without_texts_has_prompts_that_grow(tmp_path: Path) -> None:
    file = profiled([steps([(1.0, 2.0, None, 640), (3.0, 4.0, None, 960)]), steps([(1.0, 2.0, None, 640)])], tmp_path)
    first, second, other = read_trace(file, Fit())
    assert [len(text(row)) for row in (first, second, other)] == [640, 960, 640]
    assert shared(first, second) == 640 and shared(first, other) < 5


def test_the_end_of_a_prompt_that_no_block_names_is_its_own() -> None:
    shapes = [Shape("a", at_s, 1.0, 100, 1, ("x",), 32) for at_s in (0.0, 5.0)]
    one, other = rows_of(shapes, Fit())
    assert len(text(one)) == 100 and 32 <= shared(one, other) < 40
