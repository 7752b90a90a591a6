"""The metrics and their statistics."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.evaluators.kv_reuse import KvReuse
from nat_dynamo_plugin.evaluators.metric import Metric, Sample, Statistic, aggregate
from nat_dynamo_plugin.evaluators.question_latency import QuestionLatency
from nat_dynamo_plugin.evaluators.records import MEASURED_ON_WORKFLOW, Question
from nat_dynamo_plugin.evaluators.ttft import Ttft, TtftConfig
from nat_dynamo_plugin.evaluators.worker_stickiness import WorkerStickiness
from nat_dynamo_plugin.telemetry.record import CallRecord

STATISTICS: list[Statistic] = ["mean", "p50", "p95"]
statistics = st.sampled_from(STATISTICS)
numbers = st.floats(min_value=0, max_value=1e9)
plain_samples = st.lists(numbers.map(Sample), min_size=1, max_size=50)
token_counts = st.integers(1, 200_000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))
shares = st.lists(token_counts.map(lambda pair: Sample(*pair)), min_size=1, max_size=50)


def values(metric: Metric, question: Question) -> list[float]:
    return [sample.value for sample in metric.samples(question)]


class TestAggregate:
    @pytest.mark.parametrize("statistic", STATISTICS)
    def test_nothing_is_not_zero(self, statistic: Statistic) -> None:
        assert aggregate([], statistic) is None

    def test_known_figures(self) -> None:
        samples = [Sample(float(n)) for n in range(1, 101)]
        assert aggregate(samples, "mean") == 50.5
        assert aggregate(samples, "p50") == 50.5
        assert aggregate(samples, "p95") == pytest.approx(95.05)

    def test_mean_of_shares_is_the_share_of_the_whole(self) -> None:
        samples = [Sample(0, 10), Sample(900, 990)]
        assert aggregate(samples, "mean") == 0.9
        assert aggregate(samples, "p50") == pytest.approx((0 + 900 / 990) / 2)

    def test_mean_of_equal_values_is_that_value(self) -> None:
        # 0.1 + 0.1 + 0.1 divided by 3 is a little more than 0.1 in floating point.
        assert aggregate([Sample(0.1)] * 3, "mean") == 0.1

    @given(samples=plain_samples | shares, statistic=statistics)
    def test_lies_between_smallest_and_largest(self, samples: list[Sample], statistic: Statistic) -> None:
        result = aggregate(samples, statistic)
        assert result is not None
        assert min(s.value for s in samples) <= result <= max(s.value for s in samples)

    @given(samples=shares, statistic=statistics)
    def test_shares_stay_shares(self, samples: list[Sample], statistic: Statistic) -> None:
        result = aggregate(samples, statistic)
        assert result is not None
        assert 0 <= result <= 1

    @given(data=st.data(), samples=plain_samples | shares, statistic=statistics)
    def test_order_does_not_matter(self, data: st.DataObject, samples: list[Sample], statistic: Statistic) -> None:
        shuffled = data.draw(st.permutations(samples))
        assert aggregate(shuffled, statistic) == aggregate(samples, statistic)

    @given(samples=plain_samples | shares)
    def test_p95_is_not_below_p50(self, samples: list[Sample]) -> None:
        low, high = aggregate(samples, "p50"), aggregate(samples, "p95")
        assert low is not None
        assert high is not None
        assert low <= high

    @given(samples=plain_samples, factor=st.sampled_from([0.5, 2.0, 1024.0]), statistic=statistics)
    def test_scales_with_the_unit(self, samples: list[Sample], factor: float, statistic: Statistic) -> None:
        scaled = aggregate([Sample(s.amount * factor, s.of) for s in samples], statistic)
        plain = aggregate(samples, statistic)
        assert plain is not None
        assert scaled == pytest.approx(plain * factor)

    @given(numbers=st.lists(numbers, min_size=1, max_size=30))
    def test_agrees_with_numpy(self, numbers: list[float]) -> None:
        samples = [Sample(n) for n in numbers]
        assert aggregate(samples, "mean") == pytest.approx(float(np.mean(numbers)))
        assert aggregate(samples, "p95") == pytest.approx(float(np.quantile(numbers, 0.95)))


class TestKvReuse:
    def test_zero_cached_is_data_and_unknown_is_not(self, build: SimpleNamespace) -> None:
        calls = (
            build.served(prompt_tokens=100, cached_tokens=0),
            build.served(prompt_tokens=300, cached_tokens=240),
            build.served(cached_tokens=None),
            build.served(prompt_tokens=None),
            build.served(prompt_tokens=0, cached_tokens=0),
            build.served(error="stream broke"),
        )
        samples = KvReuse().samples(Question(id="q", calls=calls))
        assert samples == [Sample(0, 100), Sample(240, 300)]
        assert aggregate(samples, "mean") == 0.6


class TestTtft:
    def test_clocks_are_not_mixed(self, build: SimpleNamespace) -> None:
        calls = (
            build.served(server_ttft_ms=10.0, client_ttft_ms=15.0),
            build.served(server_ttft_ms=20.0, client_ttft_ms=None),
            build.served(server_ttft_ms=None, client_ttft_ms=90.0),
            build.served(server_ttft_ms=1.0, client_ttft_ms=1.0, status=503),
        )
        question = Question(id="q", calls=calls)
        assert values(Ttft("server"), question) == [10.0, 20.0]
        assert values(Ttft("client"), question) == [15.0, 90.0]
        assert Ttft("server").details(question) == {
            "measured_at": "server",
            "fastest_ms": 10.0,
            "slowest_ms": 20.0,
        }

    def test_the_clients_clock_stands_in_where_no_server_has_one(self, build: SimpleNamespace) -> None:
        dynamo = Question(id="d", calls=(build.served(server_ttft_ms=10.0, client_ttft_ms=15.0),))
        other = Question(id="o", calls=(build.served(server_ttft_ms=None, client_ttft_ms=90.0),))
        silent = Question(id="s", calls=(build.served(server_ttft_ms=None, client_ttft_ms=None),))
        failed = Question(id="f", calls=(build.served(client_ttft_ms=15.0, status=503),))
        auto = TtftConfig().metric()
        assert auto.suited([silent, other, failed]).measured_at == "client"
        assert auto.suited([other, dynamo]).measured_at == "server"  # one clock for all
        assert auto.suited([silent]).measured_at == "server"
        assert auto.needs == "no answered call with a server time to first token, and none that was streamed"
        assert values(auto, other) == []  # by itself, as in a sweep: the server's
        for clock in ("server", "client"):
            asked_for = TtftConfig(measured_at=clock).metric()
            assert asked_for.suited([other]) is asked_for.suited([dynamo]) is asked_for
            assert asked_for.measured_at == clock


class TestCoverage:
    def test_of_calls(self, build: SimpleNamespace) -> None:
        calls = (
            build.served(),
            build.served(cached_tokens=None),
            build.served(server_ttft_ms=None),
            build.served(worker_id=None),
            build.served(worker_id=None),
            build.served(status=503),
        )
        question = Question(id="q", calls=calls)
        assert KvReuse().covered(question) == Ttft().covered(question) == (4, 5)
        assert WorkerStickiness().covered(question) == (3, 5)
        assert QuestionLatency().covered(question) == (0, 0)


class TestWorkerStickiness:
    @pytest.mark.parametrize(
        ("workers", "expected"),
        [
            ([5], [1.0]),
            ([5, 5, 5], [1.0]),
            ([1, 2, 3, 4], [0.25]),
            ([1, 1, 2, None], [2 / 3]),
            ([0, 0], [1.0]),
            ([None, None], []),
            ([], []),
        ],
    )
    def test_share_on_the_main_worker(
        self, build: SimpleNamespace, workers: list[int | None], expected: list[float]
    ) -> None:
        calls = tuple(build.served(worker_id=worker) for worker in workers)
        assert values(WorkerStickiness(), Question(id="q", calls=calls)) == expected

    @given(workers=st.lists(st.integers(0, 5), min_size=1, max_size=30), data=st.data())
    def test_bounds_order_and_names(self, workers: list[int], data: st.DataObject) -> None:
        def score(ids: list[int]) -> float:
            calls = tuple(CallRecord(worker_id=worker) for worker in ids)
            (value,) = values(WorkerStickiness(), Question(id="q", calls=calls))
            return value

        result = score(workers)
        assert 1 / len(set(workers)) <= result <= 1
        assert (result == 1) == (len(set(workers)) == 1)
        assert score(data.draw(st.permutations(workers))) == result
        assert score([worker + 10**18 for worker in workers]) == result


class TestQuestionLatency:
    def test_seconds_of_the_workflow(self, build: SimpleNamespace) -> None:
        question = Question.from_trajectory("q", build.question(build.served(), seconds=2.5))
        assert values(QuestionLatency(), question) == [2.5]
        assert QuestionLatency().details(question) == {"measured_on": MEASURED_ON_WORKFLOW}

    def test_a_workflow_that_asked_no_llm_is_no_fast_one(self, build: SimpleNamespace) -> None:
        tool = build.step("TOOL_END", build.T0 + 1, name="search", uuid="t")
        question = Question.from_trajectory("q", build.workflow(tool, seconds=2.5))
        assert values(QuestionLatency(), question) == []

    def test_an_llm_of_another_client_is_one(self, build: SimpleNamespace) -> None:
        llm = build.step("LLM_END", build.T0 + 1, name="gpt", uuid="l")
        question = Question.from_trajectory("q", build.workflow(llm, seconds=2.5))
        assert values(QuestionLatency(), question) == [2.5]

    def test_a_failed_call_leaves_no_time(self, build: SimpleNamespace) -> None:
        failed = CallRecord(status=400)
        assert values(QuestionLatency(), Question.from_trajectory("q", build.question(build.served(), failed))) == []

    def test_unfinished_question_has_none(self, build: SimpleNamespace) -> None:
        question = Question.from_trajectory("q", build.question(build.served())[:-1])
        assert values(QuestionLatency(), question) == []
