from __future__ import annotations

import os
import threading

import pytest

from nat_dynamo_plugin.locks import Lock, after_fork


def test_what_is_said_in_the_block_is_done_behind_it_in_order() -> None:
    lock, done = Lock(), list[int]()
    with lock:
        for number in range(3):
            lock.soon(lambda number=number: done.append(number))  # type: ignore[misc]
        assert done == []
    assert done == [0, 1, 2]


def test_what_is_said_elsewhere_is_done_at_once() -> None:
    lock, done = Lock(), list[int]()
    lock.soon(lambda: done.append(1))
    assert done == [1]


def test_what_is_said_while_another_thread_is_in_does_not_wait_and_is_not_lost() -> None:
    lock, done = Lock(), list[int]()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(30)
    lock.soon(lambda: done.append(1))
    assert done == []
    leave.set()
    thread.join(30)
    assert done == [1]


def test_what_was_said_before_is_done_before_the_block() -> None:
    lock, done = Lock(), list[str]()
    lock._later.append(lambda: done.append("said"))
    with lock:
        assert done == ["said"]


def test_what_raises_is_logged_and_the_rest_is_done(caplog: pytest.LogCaptureFixture) -> None:
    lock, done = Lock(), list[int]()

    def fail() -> None:
        raise ZeroDivisionError

    with lock:
        lock.soon(fail)
        lock.soon(lambda: done.append(1))
    assert done == [1]
    assert "ZeroDivisionError" in caplog.text


def test_many_threads_are_in_one_after_the_other() -> None:
    lock = Lock()
    count = [0]

    def add() -> None:
        count[0] += 1

    def work() -> None:
        for number in range(500):
            if number % 2:
                lock.soon(add)
            else:
                with lock:
                    add()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert count == [4000]


def test_owners_are_reset_in_the_child_as_long_as_they_live() -> None:
    class Owner:
        def __init__(self) -> None:
            self.pid = os.getpid()
            after_fork(self, Owner.reset)

        def reset(self) -> None:
            self.pid = os.getpid()

    kept, dropped = Owner(), Owner()
    del dropped
    pid = os.fork()
    if pid == 0:
        os._exit(0 if kept.pid == os.getpid() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert kept.pid == os.getpid()
