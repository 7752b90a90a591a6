"""What follows from what was seen of a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nat_dynamo_plugin.cli.doctor.findings import Answered, Finding, Seen, exit_code, findings


def answered(worker: int = 1, *, cached: int | None = 90, depth: int = 0, hit: float | None = 0.9) -> Answered:
    timing: dict[str, Any] = {"ttft_ms": 1.0} if hit is None else {"kv_hit_rate": hit, "router_queue_depth": depth}
    return Answered(200, worker=worker, prompt_tokens=100, cached_tokens=cached, timing=timing)


def all_well() -> Seen:
    return Seen(
        models=["m"],
        model="m",
        is_dynamo=True,
        workers=2,
        plain=answered(cached=0),
        again=answered(),
        hinted=answered(),
        session=[answered(1)] * 8,
        free=[answered(1), answered(2)] * 4,
        repeated=[answered(1)] * 4,
        burst=[answered(depth=0), answered(depth=3)],
        session_burst=[answered(depth=0)] * 4,
    )


def by_topic(seen: Seen) -> dict[str, Finding]:
    return {one.topic: one for one in findings(seen)}


def test_of_a_server_with_the_recommended_flags_there_is_nothing_to_say() -> None:
    found = by_topic(all_well())
    assert {topic: one.state for topic, one in found.items()} == {
        "model": "ok",
        "server": "ok",
        "cached tokens": "ok",
        "timing": "ok",
        "hints": "ok",
        "router": "ok",
        "sessions": "ok",
        "affinity mode": "ok",
        "queue": "ok",
        "output blocks": "unknown",
    }
    assert "90 of 100" in found["cached tokens"].seen and "3 deep" in found["queue"].seen
    assert exit_code(list(found.values())) == 0


def test_sessions_that_wander() -> None:
    seen = all_well()
    seen.session = [answered(1), answered(2)] * 4
    found = by_topic(seen)
    assert found["sessions"].state == "bad" and "--router-session-affinity-ttl-secs 600" in found["sessions"].change
    assert "8 unrelated calls of one session went to 2 workers" in found["sessions"].seen
    assert "affinity mode" not in found
    assert exit_code(list(found.values())) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_of_one_worker_nothing_can_be_seen_of_sessions(workers: int) -> None:
    seen = all_well()
    seen.workers, seen.session, seen.free = workers, [answered(1)] * 8, [answered(1)] * 8
    assert by_topic(seen)["sessions"].state == "unknown"


def test_hard_affinity_shows_where_a_session_queues() -> None:
    seen = all_well()
    seen.session_burst = [answered(depth=2)]
    assert by_topic(seen)["affinity mode"].state == "warning"
    assert by_topic(seen)["affinity mode"].change == "--router-session-affinity-mode soft"


def test_without_a_queue_priorities_do_not_act_and_the_affinity_mode_can_not_be_told() -> None:
    seen = all_well()
    seen.burst = [answered(depth=0)] * 16
    found = by_topic(seen)
    assert (found["queue"].state, found["affinity mode"].state) == ("warning", "unknown")
    assert found["queue"].change.startswith("--router-queue-threshold 0")


def test_round_robin_reports_no_hit_rate() -> None:
    seen = all_well()
    seen.repeated = [answered(1, hit=None), answered(2, hit=None)] * 2
    found = by_topic(seen)["router"]
    assert (found.state, found.change) == ("bad", "--router-mode kv") and "went to 2 workers" in found.seen


def test_a_server_that_refuses_unknown_fields() -> None:
    seen = all_well()
    seen.again = Answered(400, "unknown field nvext")
    found = by_topic(seen)
    assert found["hints"].state == "bad" and "unknown field nvext" in found["hints"].seen
    assert "prefix_wire: [prefix_headers]" in found["hints"].change


def test_a_dynamo_that_refuses_agent_hints() -> None:
    seen = all_well()
    seen.hinted = Answered(400, "unknown field osl")
    assert "unknown field osl" in by_topic(seen)["hints"].seen and by_topic(seen)["hints"].state == "bad"


def test_a_server_that_ignores_them() -> None:
    seen = Seen(["m"], "m", plain=answered(), again=Answered(200, cached_tokens=None), hinted=Answered(200))
    found = by_topic(seen)
    assert found["hints"].state == "bad" and "ignores them" in found["hints"].seen
    assert found["server"].state == "warning" and "router" not in found
    assert found["cached tokens"].state == "warning" and "enable-prompt-tokens-details" in found["cached tokens"].change


def test_no_prefix_cache() -> None:
    seen = all_well()
    seen.again, seen.repeated = answered(cached=0), [answered(cached=0)] * 4
    assert by_topic(seen)["cached tokens"].state == "bad"


@pytest.mark.parametrize(
    ("seen", "topic", "says"),
    [
        (Seen(["llama"], "lama", plain=Answered(404, "Model not found")), "model", "did you mean llama?"),
        (Seen(["m"], "m", plain=Answered(401, "no")), "key", "env:NAME"),
        (Seen(["m"], "m", plain=Answered(500, "oh")), "call", ""),
        (Seen(["m"], "m"), "call", ""),
    ],
)
def test_a_plain_call_that_fails_is_the_only_thing_to_say(seen: Seen, topic: str, says: str) -> None:
    found = list(findings(seen))
    assert [one.topic for one in found] == [topic] and says in found[0].change
    assert exit_code(found) == 2


def test_urgent_calls_that_overtake() -> None:
    def at(ms: float) -> Answered:
        return replace(answered(), ended_ms=ms)

    seen = all_well()
    seen.early, seen.late_urgent = [at(ms) for ms in range(10)], [at(2), at(3), at(9)]
    assert by_topic(seen)["priority"].state == "ok"
    seen.late_urgent = [at(8), at(12), at(13)]
    found = by_topic(seen)["priority"]
    assert found.state == "warning" and "0 of 3" in found.seen and "(1 before the last)" in found.seen


def test_what_could_not_be_asked_in_time_is_said_to_be_not_known() -> None:
    seen = all_well()
    seen.late_s = 60.0
    seen.session_burst = []
    found = by_topic(seen)
    assert found["time"].state == "unknown" and "60 s" in found["time"].seen
    assert "sessions" in found and "queue" not in found and "affinity mode" not in found
    seen.burst = []
    assert "router" in (found := by_topic(seen)) and "sessions" not in found
    seen.repeated = []
    assert "router" not in by_topic(seen)
