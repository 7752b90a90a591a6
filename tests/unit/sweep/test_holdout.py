"""Which questions and arrivals the search and the finals get."""

from __future__ import annotations

import asyncio

import pytest
from nat.data_models.config import Config
from nat.data_models.evaluator import EvalInputItem

from nat_dynamo_plugin.sweep.holdout import WHOLE, Part
from nat_dynamo_plugin.sweep.open_loop import OpenLoopConfig
from nat_dynamo_plugin.sweep.run import _Watcher

IDS = [f"task_{k}" for k in range(40)]


@pytest.mark.parametrize(("holdout", "kept"), [(0.5, 20), (0.25, 10), (0.01, 2), (0.99, 38)])
def test_search_and_finals_share_the_questions_out(holdout: float, kept: int) -> None:
    search, finals = Part(holdout).chosen(IDS), Part(holdout, final_round=0).chosen(IDS)
    assert search | finals == set(IDS) and not search & finals
    assert len(finals) == kept


def test_the_split_is_that_of_the_ids() -> None:
    chosen = Part(0.5).chosen(IDS)
    assert Part(0.5).chosen(reversed(IDS)) == chosen
    assert Part(0.5, final_round=0).chosen(IDS) == Part(0.5, final_round=3).chosen(IDS)
    # Not the first half as it stands: datasets are sorted by difficulty, or by topic.
    assert chosen not in (set(IDS[:20]), set(IDS[20:]))


@pytest.mark.parametrize("part", [WHOLE, Part(0.0, final_round=1)])
def test_without_holdout_all_are_asked(part: Part) -> None:
    assert part.chosen(IDS) == set(IDS)


def test_few_questions_are_not_split() -> None:
    assert Part(0.5).chosen(IDS[:19]) == Part(0.5, final_round=0).chosen(IDS[:19]) == set(IDS[:19])
    assert len(Part(0.5).chosen(IDS[:20])) == 10


def test_each_round_of_the_finals_has_arrivals_of_its_own() -> None:
    seeds = set()
    for part in (Part(0.5), *(Part(0.5, final_round=k) for k in range(3))):
        config = Config(middleware={"arrivals": OpenLoopConfig(rate=1.0, seed=5)})
        part.set_arrivals(config)
        arrivals = config.middleware["arrivals"]
        assert isinstance(arrivals, OpenLoopConfig)
        seeds.add(arrivals.seed)
        if part.final_round is None:
            assert arrivals.seed == 5
    assert len(seeds) == 4


def test_a_run_asks_its_part_of_whatever_nat_loaded() -> None:
    items = [
        EvalInputItem(
            id=name, input_obj="", expected_output_obj="", output_obj="", trajectory=[], full_dataset_entry={}
        )
        for name in IDS
    ]
    part = Part(0.5, final_round=0)
    watcher = _Watcher([], Config(), None, asyncio.Event(), part)
    watcher.on_dataset_loaded(dataset_name="any", items=items)
    assert [item.id for item in items] == [name for name in IDS if name in part.chosen(IDS)]
    assert watcher.chosen == part.chosen(IDS)
