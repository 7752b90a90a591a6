from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.learning.learner import MIN_QUESTIONS, WorkLearner
from nat_dynamo_plugin.learning.means import MAX_CALLS

PATH = ("<workflow>",)


def answer(learner: WorkLearner, name: str, calls: int, kind: str | None = None, path: tuple[str, ...] = PATH) -> None:
    for _ in range(calls):
        learner.count_call(session_id=name, prefix_id=name, path=path, kind=kind)
    learner.end_question(name)


def taught(lengths: list[int], kind: str | None = None) -> WorkLearner:
    learner = WorkLearner()
    for number, calls in enumerate(lengths):
        answer(learner, f"q{number}", calls, kind)
    return learner


class TestRemainingCalls:
    def test_nothing_is_expected_of_the_first_questions(self) -> None:
        learner = WorkLearner()
        for number in range(MIN_QUESTIONS - 1):
            answer(learner, f"q{number}", 3)
        assert learner.expect(PATH) is None

    def test_questions_that_are_all_alike_are_foretold(self) -> None:
        learner = taught([6] * 400)
        for made in range(6):
            expected = learner.expect(PATH, calls_made=made)
            assert expected is not None
            assert expected.remaining_calls == pytest.approx(5 - made, abs=0.1)

    @given(st.lists(st.integers(1, 40), min_size=30, max_size=60), st.integers(0, 39))
    def test_it_is_the_mean_residual_of_what_was_seen(self, lengths: list[int], made: int) -> None:
        expected = taught(lengths * 3).expect(PATH, calls_made=made)
        longer = [length - made - 1 for length in lengths if length > made]
        assert expected is not None
        if len(longer) >= 10:
            # Decay and the prior for the unseen move it a little.
            assert expected.remaining_calls == pytest.approx(sum(longer) / len(longer), rel=0.2, abs=1.0)
        assert 0 <= expected.remaining_calls < math.inf

    def test_a_question_longer_than_all_seen_is_expected_to_go_on(self) -> None:
        expected = taught([3] * 50).expect(PATH, calls_made=20)
        assert expected is not None
        assert expected.remaining_calls >= 1

    def test_surviving_short_questions_means_much_is_left(self) -> None:
        # Most have 2 calls, some 14: whoever makes a third call has many to come.
        learner = taught([2, 2, 2, 14] * 50)
        first, third = learner.expect(PATH), learner.expect(PATH, calls_made=2)
        assert first is not None and third is not None
        assert first.remaining_calls == pytest.approx(4.0, abs=0.5)
        assert third.remaining_calls == pytest.approx(11.0, abs=0.5)

    def test_paths_are_apart(self) -> None:
        learner = taught([9] * 50)
        assert learner.expect(("<workflow>", "other")) is None


class TestKinds:
    def test_kinds_differ(self) -> None:
        learner = WorkLearner()
        for number in range(60):
            answer(learner, f"a{number}", 2, "turns=1")
            answer(learner, f"b{number}", 12, "turns=5")
        short, long = learner.expect(PATH, "turns=1"), learner.expect(PATH, "turns=5")
        assert short is not None and long is not None
        assert short.remaining_calls == pytest.approx(1.0, abs=0.5)
        assert long.remaining_calls == pytest.approx(11.0, abs=0.5)

    def test_an_unseen_fine_kind_falls_back_to_the_coarse_one(self) -> None:
        learner = WorkLearner()
        for number in range(60):
            answer(learner, f"a{number}", 2, "turns=1,tools=mail")
            answer(learner, f"b{number}", 12, "turns=5,tools=mail")
        unseen = learner.expect(PATH, "turns=5,tools=files")
        assert unseen is not None
        assert unseen.remaining_calls == pytest.approx(11.0, abs=0.6)

    def test_one_question_of_a_kind_weighs_little(self) -> None:
        learner = taught([10] * 100)
        answer(learner, "odd", 40, "rare")
        expected = learner.expect(PATH, "rare")
        assert expected is not None
        assert 9 < expected.remaining_calls < 25


class TestCallsOfAChain:
    def test_calls_are_counted_where_it_says_so_and_only_there(self) -> None:
        learner = WorkLearner()
        for made in range(3):
            learner.expect(PATH, None, 7)
            assert learner.count_call(session_id="s", prefix_id="s", path=PATH).calls == made + 1
        learner.end_question("s")
        assert learner.snapshot()[0]["calls_mean"] == 3

    def test_a_question_that_is_opened_again_begins_anew(self) -> None:
        learner = WorkLearner()
        answer(learner, "ticket-1", 3)
        assert learner.count_call(session_id="ticket-1", prefix_id="ticket-1", path=PATH).calls == 1
        learner.end_question("ticket-1")
        assert learner.snapshot()[0]["calls"].keys() == {"1", "3"}

    def test_a_call_that_ends_after_its_question_is_none_of_the_next_of_that_name(self) -> None:
        learner = taught([2] * 20)
        before = learner.count_call(session_id="t", prefix_id="t", path=PATH)
        learner.end_question("t")
        again = learner.count_call(session_id="t", prefix_id="t", path=PATH)
        learner.end_call(before, output_tokens=40, started_at=0.0, ended_at=1.0)
        learner.end_call(again, output_tokens=50, started_at=9.0, ended_at=10.0)
        row = learner.snapshot()[0]
        assert row["interarrival_ms_mean"] is None
        assert row["output_tokens_mean"] == pytest.approx(45, abs=0.1)

    def test_a_destructor_may_end_a_call_in_the_middle_of_something(self) -> None:
        learner = WorkLearner()
        chain = learner.count_call(session_id="s", prefix_id="s", path=PATH)
        with learner._lock:
            learner.end_call(chain, output_tokens=40, started_at=0.0, ended_at=1.0)
            learner.end_question("s")
        row = learner.snapshot()[0]
        assert (row["calls_mean"], row["output_tokens_mean"]) == (1, 40)

    def test_all_chains_of_a_question_end_with_it(self) -> None:
        learner = WorkLearner()
        for number in range(10):
            for session in ("main", "child"):
                path = PATH if session == "main" else (*PATH, "child")
                for _ in range(2 if session == "main" else 3):
                    learner.count_call(session_id=f"{number}/{session}", prefix_id=str(number), path=path)
            learner.end_question(str(number))
        rows = {row["path"]: row for row in learner.snapshot()}
        assert rows["<workflow>"]["calls_mean"] == pytest.approx(2)
        assert rows["<workflow>/child"]["calls_mean"] == pytest.approx(3)

    def test_ending_twice_counts_once(self) -> None:
        learner = WorkLearner()
        answer(learner, "q", 3)
        learner.end_question("q")
        assert learner.snapshot()[0]["questions"] == 1

    def test_tokens_and_gaps(self) -> None:
        learner = taught([2] * 20)
        for number in range(20):
            for start, end in ((0.0, 0.5), (0.6, 1.0)):
                chain = learner.count_call(session_id=f"t{number}", prefix_id=f"t{number}", path=PATH)
                learner.end_call(chain, output_tokens=40, started_at=start, ended_at=end)
            learner.end_question(f"t{number}")
        expected = learner.expect(PATH)
        assert expected is not None
        assert expected.output_tokens == pytest.approx(40)
        assert expected.interarrival_ms == pytest.approx(100)

    def test_calls_side_by_side_have_no_gap(self) -> None:
        learner = taught([2] * 20)
        for start, end in ((0.0, 2.0), (0.1, 2.1)):
            chain = learner.count_call(session_id="p", prefix_id="p", path=PATH)
            learner.end_call(chain, output_tokens=None, started_at=start, ended_at=end)
        assert learner.snapshot()[0]["interarrival_ms_mean"] is None


class TestBounds:
    def test_keys_are_bounded(self) -> None:
        learner = WorkLearner(max_keys=16)
        for number in range(200):
            answer(learner, f"q{number}", 2, f"kind={number}")
        assert len(learner.snapshot()) <= 16

    def test_open_chains_are_bounded(self) -> None:
        learner = WorkLearner(max_open=8)
        for number in range(100):
            learner.count_call(session_id=f"q{number}", prefix_id=f"q{number}", path=PATH)
        for number in range(100):
            learner.end_question(f"q{number}")
        assert learner.snapshot()[0]["questions"] == pytest.approx(8, abs=0.1)

    def test_lengths_are_bounded(self) -> None:
        learner = taught([MAX_CALLS * 4] * 10)
        assert list(learner.snapshot()[0]["calls"]) == [str(MAX_CALLS)]

    def test_the_old_is_forgotten(self) -> None:
        learner = taught([20] * 300 + [2] * 3000)
        expected = learner.expect(PATH)
        assert expected is not None
        assert expected.remaining_calls == pytest.approx(1.0, abs=0.2)
        assert learner.snapshot()[0]["questions"] <= 501

    def test_threads(self) -> None:
        learner = WorkLearner()

        def work(thread: int) -> None:
            for number in range(50):
                answer(learner, f"{thread}-{number}", 4)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        row = learner.snapshot()[0]
        assert list(row["calls"]) == ["4"]
        assert row["questions"] == pytest.approx((1 - 0.998**400) / 0.002, rel=1e-3)


class TestFile:
    def test_round_trip(self, tmp_path: Path) -> None:
        learner = taught([2, 5, 9] * 20, "turns=2,tools=a/b")
        file = tmp_path / "deep" / "learned.json"
        learner.save(file)
        other = WorkLearner()
        other.load(file)
        for made in range(10):
            one = learner.expect(PATH, "turns=2,tools=a/b", made)
            two = other.expect(PATH, "turns=2,tools=a/b", made)
            assert one is not None and two is not None
            assert one.remaining_calls == pytest.approx(two.remaining_calls, abs=1e-2)
        assert [p.name for p in file.parent.iterdir()] == ["learned.json"]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            '{"format": "nat-dynamo-learned", "version": 1, "groups": [{"name": ["a"], "calls": {},'
            ' "output_tokens": [0, 0, 0], "interarrival_ms": [0, 0, 0]}]}',
            "[]",
            "{}",
            '{"format": "nat-dynamo-learned", "version": 2, "groups": []}',
            '{"format": "nat-dynamo-learned", "version": 1, "groups": [{"name": ["a", ""]}]}',
            '{"format": "nat-dynamo-learned", "version": 1, "groups": [{"name": ["a", ""], "calls": {"-1": 1},'
            ' "output_tokens": [0, 0, 0], "interarrival_ms": [0, 0, 0]}]}',
            '{"format": "nat-dynamo-learned", "version": 1, "groups": [{"name": ["a", ""], "calls": {"1": 1e999},'
            ' "output_tokens": [0, 0, 0], "interarrival_ms": [0, 0, 0]}]}',
        ],
    )
    def test_another_file_is_refused_and_changes_nothing(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "learned.json"
        file.write_text(text)
        learner = taught([3] * 20)
        before = learner.snapshot()
        with pytest.raises(ValueError, match=r"learned\.json"):
            learner.load(file)
        assert learner.snapshot() == before

    def test_a_failed_write_leaves_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "learned.json"
        taught([3] * 20).save(file)
        before = file.read_text()

        def full(*_: object) -> None:
            raise OSError("no space left")

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="no space"):
            taught([4] * 20).save(file)
        assert file.read_text() == before
        assert [p.name for p in tmp_path.iterdir()] == ["learned.json"]

    def test_the_file_says_what_it_is(self, tmp_path: Path) -> None:
        taught([3] * 20).save(tmp_path / "f.json")
        data = json.loads((tmp_path / "f.json").read_text())
        assert (data["format"], data["version"]) == ("nat-dynamo-learned", 1)
