"""What is shown of what a source counts."""

from __future__ import annotations

import io
from collections import Counter

import pytest

from nat_dynamo_plugin.cli.top.counts import Counts, Worker, percentile, view
from nat_dynamo_plugin.cli.top.shown import lines, panel


def counts(calls: float, failed: int = 0) -> Counts:
    return Counts(
        under_way=3,
        waiting=1,
        calls=calls,
        failed=Counter(overload=failed),
        prompt_tokens=100 * calls,
        cached_tokens=calls**2,
        ttft_s=0.05 * calls,
        ttft_count=calls,
        ttft_buckets={0.1: calls / 2, 0.2: calls, float("inf"): calls},
        kv_blocks=200,
        workers={"8": Worker(decode_blocks=50, prefill_tokens=7, last_ttft_s=0.02), "9": Worker()},
    )


def test_the_first_look_is_of_all_time() -> None:
    seen = view("here", counts(10), None, None)
    assert (seen.calls, seen.calls_per_s, seen.failed_now) == (10, None, 0)
    assert seen.reuse == pytest.approx(0.1) and seen.ttft_s == pytest.approx(0.05)
    assert seen.ttft_p95_s == pytest.approx(0.19)
    assert seen.workers["8"] == {
        "calls": None, "kv_use": 0.25, "prefill_tokens": 7, "last_ttft_s": 0.02, "reuse": None,
    }  # fmt: skip


def test_later_looks_are_of_the_time_between() -> None:
    seen = view("here", counts(30, 4), counts(10, 1), 5.0)
    assert (seen.calls, seen.calls_per_s, seen.failed_now) == (30, 4.0, 3)
    assert seen.reuse == pytest.approx((900 - 100) / 2000)
    assert seen.ttft_p95_s == pytest.approx(0.19)
    idle = view("here", counts(30), counts(30), 5.0)
    assert (idle.calls_per_s, idle.reuse, idle.ttft_s, idle.ttft_p95_s) == (0.0, None, None, None)


def test_one_that_began_anew_is_looked_at_for_the_first_time() -> None:
    seen = view("here", counts(2), counts(30), 5.0)
    assert seen.calls_per_s is None and seen.reuse == pytest.approx(0.02)


def test_percentiles_are_interpolated() -> None:
    buckets = {1.0: 10.0, 2.0: 20.0, float("inf"): 20.0}
    assert percentile(buckets, 0.5) == pytest.approx(1.0)
    assert percentile(buckets, 0.75) == pytest.approx(1.5)
    assert percentile({1.0: 0.0, float("inf"): 5.0}, 0.5) == 1.0  # above the last bound nobody knows
    assert percentile({1.0: 0.0}, 0.5) is None and percentile({}, 0.5) is None


def test_lines_and_panel() -> None:
    from rich.console import Console

    seen = view("http://here/metrics", counts(30, 4), counts(10, 1), 5.0)
    shown = lines(seen)
    assert shown[:4] == [
        "http://here/metrics",
        "  calls under way 3, waiting 1",
        "  calls 30, 4.0 a second, failed 4 (overload 4), 3 since the last look",
        "  reuse 40.0%, TTFT 50.0 ms, p95 190.0 ms",
    ]
    assert shown[4:] == ["  worker 8: KV in use 25.0%, to prefill 7, last TTFT 20.0 ms", "  worker 9: idle"]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(panel(seen))
    text = console.export_text()
    assert "http://here/metrics" in text and "█████" in text and "failed 4 (overload 4)" in text
    evaluation = view("run", Counts(what="questions", under_way=2, done=5, total=9), None, None)
    assert lines(evaluation)[1] == "  questions under way 2, waiting -, done 5 of 9"
