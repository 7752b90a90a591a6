from __future__ import annotations

import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nat_dynamo_bfcl import benchmark
from nat_dynamo_bfcl.answers import solution
from nat_dynamo_bfcl.benchmark import BenchmarkNotInstalled, Task, check, get_task, new_instances, tasks
from nat_dynamo_bfcl.calls import ToolCall
from nat_dynamo_bfcl.environment import Environment

UTILS = "bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils"


def solved(task: Task) -> list[list[list[str]]]:
    return [[[call.render()] for call in turn] for turn in solution(task)]


def test_the_base_set_is_complete() -> None:
    assert len(tasks()) == 200
    for task in tasks().values():
        assert len(task.turns) == len(task.ground_truth) >= 1
        assert all(task.turns)


@pytest.mark.parametrize("task_id", tasks())
def test_the_ground_truth_with_named_arguments_passes_the_checker(task_id: str) -> None:
    task = get_task(task_id)
    assert check(task, solved(task)) == {"valid": True}


def test_a_left_out_call_is_a_wrong_state() -> None:
    task = get_task("multi_turn_base_0")
    calls = solved(task)
    calls[0].pop()
    verdict = check(task, calls)
    assert verdict["valid"] is False
    assert verdict["error_type"] == "multi_turn:instance_state_mismatch"


def test_a_turn_without_calls_is_named() -> None:
    task = get_task("multi_turn_base_0")
    calls = solved(task)
    calls[1] = []
    assert "empty for turn 1" in check(task, calls)["error_message"]


def test_missing_turns_count_as_terminated() -> None:
    task = get_task("multi_turn_base_0")
    assert check(task, solved(task)[:2])["error_type"] == "multi_turn:force_terminated"


def test_checks_leave_nothing_behind_and_do_not_see_each_other() -> None:
    right = get_task("multi_turn_base_90")  # its tools change the lists that they are given
    wrong = solved(right)
    wrong[0].pop()
    check(right, solved(right))
    before = set(vars(sys.modules[UTILS]))
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda calls: check(right, calls)["valid"], [solved(right), wrong] * 6))
    assert verdicts == [True, False] * 6
    assert set(vars(sys.modules[UTILS])) == before


def test_one_check_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool of the math class sets mpmath's precision, which is one for the whole process."""
    task = get_task("multi_turn_base_0")
    second_is_there = threading.Event()  # at the lock, or, if there is none, in the checker
    asked, inside, most = itertools.count(1), [], []

    class Watched:
        def __init__(self, lock: Any) -> None:
            self._lock = lock

        def __enter__(self) -> None:
            if next(asked) == 2:
                second_is_there.set()
            self._lock.__enter__()

        def __exit__(self, *error: Any) -> None:
            self._lock.__exit__(*error)

    def checker(*_: Any) -> dict[str, Any]:
        inside.append(None)
        most.append(len(inside))
        if len(most) == 2:
            second_is_there.set()
        if len(most) == 1:
            assert second_is_there.wait(60)
        inside.pop()
        return {"valid": True}

    monkeypatch.setattr(benchmark, "_checker_lock", Watched(benchmark._checker_lock))
    monkeypatch.setattr("bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker.multi_turn_checker", checker)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: check(task, solved(task))["valid"], range(2))) == [True, True]
    assert most == [1, 1]


def test_instances_are_fresh_each_time() -> None:
    task = get_task("multi_turn_base_0")
    first, second = new_instances(task), new_instances(task)
    first["GorillaFileSystem"].mkdir(dir_name="new")
    assert "new" not in second["GorillaFileSystem"].ls()["current_directory_content"]
    assert "new" not in new_instances(task)["GorillaFileSystem"].ls()["current_directory_content"]


def test_tools_do_not_change_what_they_are_given() -> None:
    environment = Environment(get_task("multi_turn_base_90"))
    post = ToolCall("post_tweet", {"content": "hello", "tags": ["#a"], "mentions": ["@b"]})
    login = ToolCall("authenticate_twitter", {"username": "wanderlust_emma", "password": "Tr@vel2023Secure"})
    environment.call(login)
    tweet = environment.call(post)
    environment.call(ToolCall("mention", {"tweet_id": tweet["id"], "mentioned_usernames": ["@c"]}))
    assert post.arguments["mentions"] == ["@b"]


def test_results_and_errors_read_as_in_bfcl() -> None:
    environment = Environment(get_task("multi_turn_base_0"))
    assert environment.execute(ToolCall("pwd", {})) == '{"current_working_directory": "/workspace"}'
    assert "No such file or directory" in environment.execute(ToolCall("cd", {"folder": "nowhere"}))
    assert environment.execute(ToolCall("fly", {})) == "Error during execution: name 'fly' is not defined"
    assert environment.execute(ToolCall("cd", {"wings": 2})).startswith(
        "Error during execution: GorillaFileSystem.cd()"
    )


def test_an_unknown_task_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"unknown BFCL task 'multi_turn_base0'.*did you mean 'multi_turn_base_0'\?"):
        get_task("multi_turn_base0")


def test_without_bfcl_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bfcl_eval", None)
    with pytest.raises(BenchmarkNotInstalled, match=r"pip install --no-deps bfcl-eval==2026\.3\.23"):
        benchmark.tasks.__wrapped__()
