"""What blocks say."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from nat_dynamo_plugin.cli.bench.blocks import Block, Level, Question
from nat_dynamo_plugin.cli.bench.calls import Seen
from nat_dynamo_plugin.cli.bench.judged import Judged, judged, verdict
from nat_dynamo_plugin.cli.bench.server import Server
from nat_dynamo_plugin.cli.bench.shown import as_data, as_text

DYNAMO = Server("http://127.0.0.1:1/v1", "m", True, 2, 1.0, True, True)
LUCK = (1.0, 1.01, 0.99, 1.02, 0.98)


def block(took_s: float, cached: int | None = 50, failed: int = 0) -> Block:
    answered = {f"q{k}": Question(took_s * (1 + k / 100), (Seen(took_s / 10, took_s, 100, cached),)) for k in range(4)}
    return Block(answered, failed, "KeyError: x" if failed else None, took_s)


def level(concurrency: int, ratio: float, luck: Sequence[float] = LUCK, cached: int | None = 50) -> Judged:
    """A level whose plugin takes `ratio` of what the plain client takes."""
    rounds = tuple(
        {"plain": block(2.0 * one, cached), "plugin": block(2.0 * ratio * other, None if cached is None else 70)}
        for one, other in zip(luck, luck[::-1], strict=True)
    )
    return judged(Level(concurrency, rounds), 3)


def test_gains_and_outcomes() -> None:
    found = level(4, 0.8)
    figure = found.figures["question"]
    assert figure.outcome == found.outcome == "better"
    assert figure.gain.estimate == pytest.approx(0.2, abs=0.005) and figure.gain.low < 0.2 < figure.gain.high
    assert figure.plain == pytest.approx(2.03, abs=0.01) and figure.plugin == pytest.approx(1.62, abs=0.01)
    assert found.figures["TTFT"].plain == pytest.approx(200, abs=1.0)
    reuse = found.figures["reuse"]
    assert (reuse.plain, reuse.plugin, reuse.gain.estimate) == pytest.approx((0.5, 0.7, 0.2))
    assert reuse.gain.is_difference
    assert level(4, 1.2).outcome == "worse"
    assert level(4, 1.0, (1.0, 1.001, 0.999)).outcome == "no better"
    assert level(4, 1.0, (1.0, 1.4, 0.7)).outcome == "inconclusive"


def test_several_levels_make_each_interval_wider() -> None:
    blocks = tuple({"plain": block(2.0 * one), "plugin": block(2.0)} for one in LUCK)
    alone, of_ten = (judged(Level(1, blocks), n).figures["question"].gain for n in (1, 10))
    assert of_ten.high - of_ten.low > alone.high - alone.low
    assert (alone.confidence, of_ten.confidence) == pytest.approx((0.95, 0.995))


def test_a_server_without_counts_has_no_reuse() -> None:
    assert "reuse" not in level(1, 0.9, cached=None).figures


def test_the_verdict_says_from_which_load_on() -> None:
    even = (1.0, 1.001, 0.999)
    assert "It pays from 4 questions at once on: at 16, a question takes 30.0% less time" in verdict(
        [level(1, 1.0, even), level(4, 0.8), level(16, 0.7)]
    )
    assert verdict([level(4, 0.8)]).startswith("It pays at 4 at once: at 4, a question takes 20.")
    assert verdict([level(1, 0.8), level(4, 1.0, even)]).startswith("It pays at 1 at once (")
    told = verdict([level(1, 1.2), level(4, 0.8)])
    assert "It pays from 4" in told and "It costs at 1 at once: a question takes 20." in told
    assert verdict([level(1, 1.0, even)]) == "It does not pay at this load: no gain, or one below 3%."
    assert verdict([level(1, 1.0, (1.0, 1.4, 0.7))]).startswith("No difference was shown; a gain of up to ")


def test_failures_are_shown_and_too_few_answers_make_no_verdict() -> None:
    rounds = tuple({"plain": block(2.0 * one, failed=2), "plugin": block(1.0)} for one in LUCK)
    found = judged(Level(8, rounds), 1)
    assert found.failed == {"plain": 10, "plugin": 0}
    text = as_text(DYNAMO, "a load", [found])
    assert "8 at once: failed calls: plain 10, plugin 0; the first: KeyError: x" in text
    none = judged(Level(8, tuple({"plain": Block(), "plugin": block(1.0)} for _ in range(3))), 1)
    assert none.outcome is None and verdict([none]).startswith("No verdict: in round 0, 0 questions were answered")
    assert verdict([judged(Level(8, rounds[:2]), 1)]).startswith("No verdict: 2 and 2 rounds")


def test_what_is_shown() -> None:
    found = [level(4, 0.8)]
    text = as_text(DYNAMO, "a load", found)
    assert "Dynamo, 2 workers, model m." in text and "Load: a load." in text and "openai " in text and "cores " in text
    assert "+20.0 points" in text and " ms |" in text and text.endswith(verdict(found))
    plain = as_text(Server("http://h/v1", "m", False, None, 1.0, False, False), "a load", found)
    assert "not Dynamo" in plain and "Hints and sessions do not act there" in plain and "no reuse" in plain
    data = json.loads(json.dumps(as_data(DYNAMO, "a load", found)))
    assert data["levels"][0]["outcome"] == "better" and data["verdict"] == verdict(found)
    assert data["levels"][0]["figures"]["question"]["gain"]["low"] > 0.15 and data["server"]["workers"] == 2
