"""Which of the tuned values made the difference."""

from __future__ import annotations

from optuna.distributions import IntDistribution

from nat_dynamo_plugin.sweep.importance import importance
from nat_dynamo_plugin.sweep.results import TrialRow
from nat_dynamo_plugin.sweep.study import Planned, Queue, Storage

SPACE = {"a": IntDistribution(0, 9), "b": IntDistribution(0, 9)}


def row(index: int, gain: float) -> TrialRow:
    return TrialRow(index, {}, "done", (1 - gain,), gain, 1, 1, None, 1.0, None, "")


def test_what_made_the_difference_is_the_important_one(storage: Storage) -> None:
    queue = Queue(storage, "one", ["minimize"], SPACE)
    queue.fill([Planned({"a": k % 10, "b": k * 7 % 10}) for k in range(20)])
    rows = []
    for index in range(20):
        trial = queue.take()
        assert trial is not None
        value = 1.0 + trial.params["b"]
        queue.tell(trial, [value])
        rows.append(row(index, 1 - value))
        if index == 2:
            assert importance(queue, rows) == {}  # of three trials nothing can be said
    found = importance(queue, rows)
    assert found.keys() == {"a", "b"}
    assert found["b"] > 0.8 > 0.2 > found["a"] >= 0
    assert abs(sum(found.values()) - 1) < 1e-6


def test_of_several_objectives_the_gain_says_what_is_important(storage: Storage) -> None:
    queue = Queue(storage, "two", ["minimize", "maximize"], SPACE)
    queue.fill([Planned({"a": k % 10, "b": k * 7 % 10}) for k in range(20)])
    rows = []
    for index in range(20):
        trial = queue.take()
        assert trial is not None
        queue.tell(trial, [float(trial.params["b"]), float(trial.params["b"])])
        rows.append(row(index, trial.params["a"] / 10))
    found = importance(queue, rows)
    assert found["a"] > 0.8
