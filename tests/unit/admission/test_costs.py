from __future__ import annotations

import pytest

from nat_dynamo_plugin.admission.costs import CallCosts, _running
from nat_dynamo_plugin.telemetry.record import CallRecord


def call(
    *,
    chain: str = "s",
    at: float = 0.0,
    prompt: int = 1000,
    cached: int = 0,
    output: int = 11,
    ttft_ms: float = 100.0,
    total_ms: float = 200.0,
) -> CallRecord:
    return CallRecord(
        session_id=chain,
        started_at=at,
        client_total_ms=total_ms,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=output,
        server_ttft_ms=ttft_ms,
        server_total_ms=total_ms,
    )


def steady(count: int = 300, every: float = 0.1, **fields: float) -> CallCosts:
    """Costs after many equal calls, of as many chains."""
    costs = CallCosts()
    for number in range(count):
        costs.add(call(chain=f"{number}", **fields), number * every)  # type: ignore[arg-type]
    return costs


@pytest.mark.parametrize(
    "silent",
    ["prompt_tokens", "cached_tokens", "completion_tokens", "server_ttft_ms", "server_total_ms"],
)
def test_a_server_that_does_not_say_teaches_nothing(silent: str) -> None:
    costs, record = CallCosts(), call()
    setattr(record, silent, None)
    assert not costs.add(record, 1.0)
    assert not costs.add(record, 2.0)
    assert not costs.known


def test_two_calls_are_needed_to_know_how_much_time_passes() -> None:
    costs = CallCosts()
    assert costs.add(call(), 1.0)
    assert not costs.known
    costs.add(call(), 2.0)
    assert costs.known


def test_short_prompts_and_answers_do_not_tell_what_a_token_takes() -> None:
    assert not steady(prompt=255).known
    assert not steady(output=4).known
    assert steady(prompt=256, output=5).known


def test_what_was_computed_before_and_again_is_lost() -> None:
    costs = CallCosts()
    costs.add(call(prompt=1000), 1.0)
    assert (costs.held, costs.lost, costs.lost_share) == (0.0, 0.0, 0.0)
    costs.add(call(prompt=1500, cached=436), 2.0)
    # 1000 were held, 564 of them were not found, and 64 may be a block that was not full.
    assert costs.lost_share == pytest.approx(0.5)
    assert costs.held == pytest.approx(1000 / (1 + 31 / 32))
    assert costs.lost == pytest.approx(500 / (1 + 31 / 32))


def test_a_prompt_that_was_cut_is_no_loss() -> None:
    costs = CallCosts()
    costs.add(call(prompt=5000), 1.0)
    costs.add(call(prompt=1000, cached=990), 2.0)
    assert costs.lost == 0.0


def test_other_chains_tell_nothing_of_a_chain() -> None:
    costs = CallCosts()
    costs.add(call(chain="a"), 1.0)
    costs.add(call(chain="b"), 2.0)
    assert costs.held == 0.0


def test_the_share_of_the_workers_time_that_computing_takes() -> None:
    # A token takes .1 ms at least and ten calls end a second, so 1000 tokens a call are one worker's time.
    costs = steady(count=2000)
    assert costs.prefill_share(1000, 1) == pytest.approx(1.0, rel=0.05)
    assert costs.prefill_share(500, 4) == pytest.approx(0.125, rel=0.05)


def test_more_workers_make_more_calls() -> None:
    costs = steady()
    assert costs.throughput(40, 0, 4) > 2 * costs.throughput(40, 0, 1)


@pytest.mark.parametrize("each", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("tools", [0.0, 0.3, 10.0])
def test_calls_that_run_and_tools_that_run_are_all_questions(each: float, tools: float) -> None:
    running = _running(24, tools, 0.2, each)
    assert running * (1 + tools / (0.2 + each * running)) == pytest.approx(24)


def test_old_calls_are_forgotten() -> None:
    costs = steady(count=200, prompt=1000)
    for number in range(500):
        costs.add(call(chain=f"n{number}", prompt=3000), 20.0 + number * 0.1)
    assert costs.prompt == pytest.approx(3000, rel=0.01)


def test_no_more_chains_are_remembered_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nat_dynamo_plugin.admission.costs._MAX_CHAINS", 2)
    costs = CallCosts()
    for chain in "abca":
        costs.add(call(chain=chain), 1.0)
    assert costs.held == 0.0, "the first was forgotten when the third came"
