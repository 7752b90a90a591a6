"""The one door to the installed package bfcl-eval: its tasks, its tools, its checker.

bfcl-eval is installed without its requirements. Its data files, the executable tools and the multi-turn checker need
none of them but mpmath; everything else in it is left alone. Nothing of it is copied here: all is read at run time.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import inspect
import json
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

BFCL_EVAL = "bfcl-eval==2026.3.23"
"""The release that this package was written for."""

CATEGORY = "BFCL_v4_multi_turn_base.json"
"""The data file of the multi-turn base category: 200 tasks."""

_checker_lock = threading.Lock()


class BenchmarkNotInstalled(ImportError):
    """bfcl-eval, or a part of it that the benchmark needs, cannot be imported."""


@dataclass(frozen=True, slots=True)
class Task:
    """One BFCL task: what the user says turn by turn, the world it starts from, and the calls that would be right."""

    id: str
    turns: tuple[str, ...]
    involved_classes: tuple[str, ...]
    initial_config: Mapping[str, Any]
    ground_truth: tuple[tuple[str, ...], ...]


@cache
def tasks() -> Mapping[str, Task]:
    """All tasks of the multi-turn base category by id, in BFCL's order.

    Raises:
        BenchmarkNotInstalled: bfcl-eval is not installed.
    """
    answers = {row["id"]: row["ground_truth"] for row in _rows("possible_answer", CATEGORY)}
    return {
        row["id"]: Task(
            id=row["id"],
            turns=tuple("\n".join(message["content"] for message in turn) for turn in row["question"]),
            involved_classes=tuple(row["involved_classes"]),
            initial_config=row["initial_config"],
            ground_truth=tuple(tuple(turn) for turn in answers[row["id"]]),
        )
        for row in _rows(CATEGORY)
    }


def get_task(task_id: str) -> Task:
    """The task of that id.

    Raises:
        ValueError: there is no such task; the message names the nearest one.
    """
    try:
        return tasks()[task_id]
    except KeyError:
        near = difflib.get_close_matches(task_id, tasks(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = list(tasks())
        raise ValueError(f"unknown BFCL task {task_id!r}, known: {known[0]!r} to {known[-1]!r}{hint}") from None


@cache
def function_docs(class_name: str) -> tuple[Mapping[str, Any], ...]:
    """BFCL's documentation of a class's tools, in its own words and its own schema dialect."""
    return tuple(_rows("multi_turn_func_doc", _backend().MULTI_TURN_FUNC_DOC_FILE_MAPPING[class_name]))


def new_instances(task: Task) -> dict[str, Any]:
    """Fresh instances of the classes that a task involves, in its initial state, by class name."""
    instances = {}
    for class_name in task.involved_classes:
        instance = _tool_class(class_name)()
        if class_name not in _backend().STATELESS_CLASSES:
            # The tools change what they are given.
            instance._load_scenario(copy.deepcopy(task.initial_config.get(class_name, {})))
        instances[class_name] = instance
    return instances


@cache
def tool_parameters(class_name: str) -> Mapping[str, tuple[str, ...]]:
    """The parameter names, in order, of each public method of a BFCL class."""
    return {
        name: tuple(inspect.signature(method).parameters)[1:]
        for name, method in inspect.getmembers(_tool_class(class_name), inspect.isfunction)
        if not name.startswith("_")
    }


def task_parameters(task: Task) -> dict[str, tuple[str, ...]]:
    """The parameter names of each tool that a task can use.

    Where two classes share a tool's name the later class has it, as in BFCL.
    """
    return {name: names for class_name in task.involved_classes for name, names in tool_parameters(class_name).items()}


def check(task: Task, calls: Sequence[Sequence[Sequence[str]]]) -> dict[str, Any]:
    """Apply BFCL's multi-turn checker to executed calls, given by turn and step as call strings.

    The checker executes them, and the ground truth, on instances that it keeps as globals of its module under
    the model's name. Each check therefore runs under a name of its own and takes its instances away again, so
    that checks neither see each other nor pile up.

    Returns:
        BFCL's verdict: `valid`, and if that is false `error_type`, `error_message` and `details`.
    """
    if len(calls) != len(task.ground_truth):
        # BFCL's own rule, from its evaluation runner, which needs its other requirements.
        return {
            "valid": False,
            "error_type": "multi_turn:force_terminated",
            "error_message": f"The model answered {len(calls)} of {len(task.ground_truth)} turns.",
        }
    checker = _import("bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker")
    state = vars(_import("bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils"))
    run = f"run_{uuid.uuid4().hex}"
    # One at a time: a tool of the math class sets the global precision of mpmath.
    with _checker_lock:
        try:
            verdict: dict[str, Any] = checker.multi_turn_checker(
                [[list(step) for step in turn if step] for turn in calls],
                [list(turn) for turn in task.ground_truth],
                {
                    "id": task.id,
                    "initial_config": task.initial_config,
                    "involved_classes": list(task.involved_classes),
                },
                "multi_turn_base",
                run,
            )
            return verdict
        finally:
            for name in [name for name in state if name.startswith(run)]:
                del state[name]


def _rows(*path: str) -> Iterator[dict[str, Any]]:
    file = _data().joinpath(*path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BenchmarkNotInstalled(f"bfcl-eval is installed without {'/'.join(path)}; install {BFCL_EVAL}") from error
    return (json.loads(line) for line in text.splitlines() if line.strip())


def _data() -> Traversable:
    try:
        return files("bfcl_eval") / "data"
    except ModuleNotFoundError as error:
        raise BenchmarkNotInstalled(_how_to_install(error)) from error


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BenchmarkNotInstalled(_how_to_install(error)) from error


def _how_to_install(error: ModuleNotFoundError) -> str:
    return (
        f"the BFCL benchmark needs a package that is not installed ({error.name}): "
        f"pip install mpmath && pip install --no-deps {BFCL_EVAL}"
    )


def _backend() -> Any:
    return _import("bfcl_eval.constants.executable_backend_config")


def _tool_class(class_name: str) -> Any:
    return getattr(_import(_backend().CLASS_FILE_PATH_MAPPING[class_name]), class_name)
