from __future__ import annotations

import json

import pytest
from nat.plugins.eval.dataset_handler.dataset_handler import DatasetHandler
from pydantic import ValidationError

from nat_dynamo_bfcl.benchmark import get_task, tasks
from nat_dynamo_bfcl.dataset import BfclMultiTurnConfig, task_of


def items(config: BfclMultiTurnConfig, reps: int = 1) -> list[tuple[str, str]]:
    handler = DatasetHandler(dataset_config=config, reps=reps, concurrency=8)
    eval_input = handler.get_eval_input_from_dataset("")
    return [(item.id, task_of(item.input_obj).id) for item in eval_input.eval_input_items]


def test_all_tasks_by_default() -> None:
    assert items(BfclMultiTurnConfig()) == [(task_id, task_id) for task_id in tasks()]


def test_a_limit_takes_the_first() -> None:
    assert [task_id for task_id, _ in items(BfclMultiTurnConfig(limit=3))] == list(tasks())[:3]


def test_a_seed_chooses_the_same_tasks_each_time() -> None:
    first = items(BfclMultiTurnConfig(limit=24, seed=7))
    assert first == items(BfclMultiTurnConfig(limit=24, seed=7))
    assert first != items(BfclMultiTurnConfig(limit=24, seed=8))
    assert len(set(first)) == 24


def test_ids_in_their_order() -> None:
    ids = ["multi_turn_base_7", "multi_turn_base_3"]
    assert [task_id for task_id, _ in items(BfclMultiTurnConfig(ids=ids))] == ids


def test_repetitions_work_on_the_same_task() -> None:
    assert items(BfclMultiTurnConfig(limit=1), reps=2) == [
        ("multi_turn_base_0_rep0", "multi_turn_base_0"),
        ("multi_turn_base_0_rep1", "multi_turn_base_0"),
    ]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"limit": 0}, "greater than or equal to 1"),
        ({"ids": []}, "at least 1 item"),
        ({"ids": ["multi_turn_base_200"]}, "unknown BFCL task 'multi_turn_base_200'.*did you mean"),
        ({"lmit": 3}, "lmit"),
        ({"file_path": "mine.json"}, "'mine.json'.*remove file_path"),
    ],
)
def test_bad_fields_are_refused_when_the_config_is_read(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        BfclMultiTurnConfig(**fields)


@pytest.mark.parametrize(
    "text", ['{"id": "multi_turn_base_5", "more": 1}', '"multi_turn_base_5"', " multi_turn_base_5\n"]
)
def test_inputs_that_name_a_task(text: str) -> None:
    assert task_of(text) is get_task("multi_turn_base_5")


@pytest.mark.parametrize("text", ["{}", "[]", "5", json.dumps({"id": 5})])
def test_inputs_that_name_none(text: str) -> None:
    with pytest.raises(ValueError, match="names no BFCL task"):
        task_of(text)
