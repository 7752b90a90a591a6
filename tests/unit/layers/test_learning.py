from __future__ import annotations

import gc
from pathlib import Path

import pytest

from nat_dynamo_plugin.layers.learning import LearningLayer
from nat_dynamo_plugin.learning.learner import WorkLearner
from nat_dynamo_plugin.question.hints import DynamoHints, PrefixHints
from nat_dynamo_plugin.question.identity import CallIdentity
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext

from .layered import FakeCall, LayeredClient

IDENTITY = CallIdentity("q", "q", None, ("<workflow>",))


def learning(file: Path | None = None) -> LayeredClient:
    return LayeredClient(LearningLayer(WorkLearner(), file))


async def ask(client: LayeredClient, calls: int = 1, questions: int = 10, start: int = 0) -> None:
    for number in range(start, start + questions):
        with DynamoPrefixContext.scope(f"q{number}"):
            for _ in range(calls):
                await client.ask()


def learner(client: LayeredClient) -> WorkLearner:
    assert client.learning is not None
    return client.learning.learner


async def test_a_priority_is_planned_once_something_is_known() -> None:
    client = learning()
    await ask(client, 3, 30)
    assert client.plans[0].priority is None
    priorities = [plan.priority or 0 for plan in client.plans[-3:]]
    assert priorities == sorted(priorities)
    assert priorities[0] < priorities[-1]
    assert client.plans[-1].hints.osl == 40
    assert client.plans[-1].hints.remaining_calls == pytest.approx(0.0, abs=0.2)


async def test_a_learned_total_of_one_keeps_the_session() -> None:
    client = learning()
    await ask(client, 1, 20)
    assert [plan.session_id for plan in client.plans] == [f"q{number}" for number in range(20)]


async def test_a_scope_knows_better() -> None:
    client = learning()
    await ask(client)
    with DynamoPrefixContext.scope("known"), DynamoHints.scope(total_requests=30, osl=1000):
        await client.ask()
    assert client.plans[-1].priority is not None and client.plans[-1].priority < 10
    assert client.plans[-1].expected_output_tokens == 1000


async def test_a_constant_of_the_config_is_kept() -> None:
    client = LayeredClient(LearningLayer(WorkLearner()), hints=PrefixHints(total_requests=7, osl=11, iat=13))
    await ask(client)
    hints = client.plans[-1].hints
    assert (hints.total_requests, hints.osl, hints.iat, hints.total_is_known) == (7, 11, 13, False)


async def test_kinds_lead_to_different_priorities() -> None:
    client = learning()
    first: dict[str, int] = {}
    for number in range(60):
        kind, calls = ("short", 2) if number % 2 else ("long", 9)
        with DynamoPrefixContext.scope(f"q{number}"), DynamoHints.scope(kind=kind):
            await client.ask()
            first[kind] = client.plans[-1].priority or 0
            for _ in range(calls - 1):
                await client.ask()
    assert first["short"] > first["long"]


async def test_what_is_expected_does_not_count() -> None:
    client = learning()
    await ask(client, 2)
    assert client.learning is not None
    before = learner(client).snapshot()
    hints = [client.learning.expected(IDENTITY, None, PrefixHints(), 0) for _ in range(5)]
    assert hints == [hints[0]] * 5
    client.learning.question_ended("q")
    assert learner(client).snapshot() == before


async def test_a_call_that_failed_counts_and_tells_nothing_of_tokens() -> None:
    client = learning()
    client.fails = ConnectionError()
    with DynamoPrefixContext.scope("q"):
        with pytest.raises(ConnectionError):
            await client.ask()
        client.fails = None
        await client.ask()
    (row,) = learner(client).snapshot()
    assert (row["calls_mean"], row["output_tokens_mean"]) == (2, 40)


async def test_a_question_that_is_opened_again_is_another_one() -> None:
    client = learning()
    for _ in range(3):
        await ask(client, 2, 1)
    (row,) = learner(client).snapshot()
    assert row["calls"].keys() == {"2"}


def test_a_call_of_nobody_passes() -> None:
    layer = LearningLayer(WorkLearner())
    call = FakeCall(None)

    def send(call: object) -> object:
        return "reply"
        yield

    flow = layer.flow(call, send)  # type: ignore[arg-type]
    with pytest.raises(StopIteration) as stop:
        next(flow)
    call.finish()
    assert stop.value.value == "reply"
    assert layer.learner.snapshot() == []


async def test_what_was_learned_is_kept_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "learned.json"
    client = learning(file)
    await ask(client, 2)
    assert client.learning is not None
    client.learning.close()
    again = learning(file)
    with DynamoPrefixContext.scope("new"):
        await again.ask()
    assert again.plans[-1].priority is not None


async def test_what_was_learned_is_kept_though_nobody_closes(tmp_path: Path) -> None:
    file = tmp_path / "learned.json"
    client = learning(file)
    await ask(client, 2)
    del client
    gc.collect()
    assert file.exists()


async def test_a_file_that_can_not_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    client = learning(tmp_path / "file" / "learned.json")
    await ask(client)
    assert client.learning is not None
    client.learning.close()
    assert "could not be written" in caplog.text


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "learned.json"
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"learned\.json"):
        LearningLayer(WorkLearner(), file)
