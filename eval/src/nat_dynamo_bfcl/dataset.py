"""The dataset `bfcl_multi_turn`: BFCL's multi-turn base tasks, read from the installed package."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from nat.data_models.dataset_handler import EvalDatasetBaseConfig
from pydantic import Field, field_validator, model_validator

from nat_dynamo_bfcl.benchmark import CATEGORY, Task, get_task, tasks


class BfclMultiTurnConfig(EvalDatasetBaseConfig, name="bfcl_multi_turn"):
    """Which of BFCL's 200 multi-turn base tasks to run. All of them, unless told otherwise."""

    ids: list[str] | None = Field(default=None, min_length=1, description="Only these tasks, in this order.")
    seed: int | None = Field(default=None, description="Shuffle the tasks with this seed; null keeps BFCL's order.")
    limit: int | None = Field(default=None, ge=1, description="Only the first so many tasks, after shuffling.")
    # NAT names the dataset after it and hands it to the loader, which has no use for it.
    file_path: Path | str = Field(default=CATEGORY, description="Not to be set: tasks come from the installed package.")

    @model_validator(mode="after")
    def _ids_exist(self) -> BfclMultiTurnConfig:
        for task_id in self.ids or ():
            get_task(task_id)
        return self

    @field_validator("file_path")
    @classmethod
    def _no_file(cls, value: Path | str) -> Path | str:
        if str(value) != CATEGORY:
            raise ValueError(f"{str(value)!r}: tasks come from the installed bfcl-eval; remove file_path")
        return value

    def parser(self) -> tuple[Callable[..., pd.DataFrame], dict[str, Any]]:
        """NAT's contract: a function that takes a path and keywords, and the keywords."""
        return load, {"ids": self.ids, "seed": self.seed, "limit": self.limit}


def load(
    file_path: Path | str = CATEGORY,
    *,
    ids: list[str] | None = None,
    seed: int | None = None,
    limit: int | None = None,
) -> pd.DataFrame:
    """The chosen tasks, one a row: what NAT's eval needs, and the user's turns for whoever reads the results.

    `question`, the workflow's input, carries the task's id: NAT does not tell a workflow which item it works on.
    """
    chosen = [get_task(task_id) for task_id in ids] if ids else list(tasks().values())
    if seed is not None:
        random.Random(seed).shuffle(chosen)
    return pd.DataFrame([_row(task) for task in chosen[:limit]])


def _row(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "question": json.dumps({"id": task.id}),
        "answer": [list(turn) for turn in task.ground_truth],
        "turns": list(task.turns),
        "involved_classes": list(task.involved_classes),
    }


def task_of(text: str) -> Task:
    """The task that a workflow's input names: `{"id": "multi_turn_base_0"}`, or just the id.

    Raises:
        ValueError: it names none.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = text.strip()
    task_id = value.get("id") if isinstance(value, dict) else value
    if not isinstance(task_id, str):
        raise ValueError(f'input {text!r} names no BFCL task; expected {{"id": "multi_turn_base_0"}} or just the id')
    return get_task(task_id)
