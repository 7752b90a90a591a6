"""The queue in its storage: who is dead, what is given back, and in which order trials are taken."""

from __future__ import annotations

import os

from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from nat_dynamo_plugin.processes import this_machine
from nat_dynamo_plugin.processes import this_process as me
from nat_dynamo_plugin.sweep.study import INDEX, OWNER, PROBLEM, Planned, Queue, Storage

SPACE = {"a": IntDistribution(0, 9), "b": IntDistribution(0, 9)}


def queue_of(storage: Storage, count: int = 3, *, leave_rest: bool = False) -> Queue:
    queue = Queue(storage, "study", ["minimize"], SPACE)
    queue.fill([Planned({"a": k % 10, "b": k * 7 % 10}) for k in range(count)], leave_rest=leave_rest)
    return queue


def index_of(queue: Queue) -> int | None:
    trial = queue.take()
    return None if trial is None else trial.user_attrs[INDEX]


def test_a_trial_of_a_dead_process_is_given_back(storage: Storage) -> None:
    queue = queue_of(storage)
    trial = queue.take()
    assert trial is not None
    trial.set_user_attr("run:0", {"kept": True})
    assert index_of(queue) == 1  # it is ours, and we live
    trial.set_user_attr(OWNER, f"{this_machine()}:{os.getpid()}:1")
    again = queue.take()
    assert again is not None and again.user_attrs[INDEX] == 0
    assert again.user_attrs["run:0"] == {"kept": True}
    assert again.user_attrs[OWNER] == me()
    assert queue.trials().keys() == {0, 1, 2}


def test_a_trial_that_nobody_put_a_name_on_is_given_back(storage: Storage) -> None:
    queue = queue_of(storage)
    # A process that is killed between taking a trial and putting its name on it.
    storage.optuna.set_trial_state_values(queue.trials()[0]._trial_id, state=TrialState.RUNNING)
    assert [index_of(queue) for _ in range(4)] == [0, 1, 2, None]


def test_trials_are_taken_in_the_order_of_the_plan(storage: Storage) -> None:
    queue = queue_of(storage)
    first = queue.take()
    assert first is not None
    queue.give_back(first)
    assert [index_of(queue) for _ in range(4)] == [0, 1, 2, None]
    assert queue.busy()


def test_a_trial_has_the_values_that_were_planned_also_when_it_was_given_back(storage: Storage) -> None:
    queue = queue_of(storage)
    first, second = queue.take(), queue.take()
    assert first is not None and second is not None
    assert second.params == {"a": 1, "b": 7}
    queue.give_back(second)
    again = queue.take()
    assert again is not None and again.params == {"a": 1, "b": 7}


def test_failed_trials_are_put_back_with_what_was_measured_and_without_the_problem(storage: Storage) -> None:
    queue = queue_of(storage)
    trials = [queue.take() for _ in range(3)]
    for trial, end in zip(trials, (queue.tell, queue.fail, queue.prune), strict=True):
        assert trial is not None
        trial.set_user_attr("run:0", {})
        end(trial, *{queue.tell: [[1.0]], queue.fail: ["no answer"]}.get(end, []))  # type: ignore[operator]
    assert queue.trials()[1].user_attrs[PROBLEM] == "no answer"
    assert index_of(queue) is None and not queue.busy()
    queue.retry_failed()
    again = queue.take()
    assert again is not None and again.user_attrs[INDEX] == 1
    assert again.user_attrs["run:0"] == {} and again.user_attrs[PROBLEM] is None
    assert index_of(queue) is None
    states = [trial.state for trial in queue.trials().values()]
    assert states == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.PRUNED]


def test_the_rest_of_a_longer_plan_is_left_alone_only_if_asked(storage: Storage) -> None:
    assert len(queue_of(storage, 5).trials()) == 5
    assert len(queue_of(storage, 2).trials()) == 5
    short = queue_of(storage, 2, leave_rest=True)
    assert [index_of(short) for _ in range(3)] == [0, 1, None]
    assert len(short.snapshot().trials) == 2
    assert [index_of(queue_of(storage, 5)) for _ in range(4)] == [2, 3, 4, None]
