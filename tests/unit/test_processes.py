"""Processes by names that no other process has."""

from __future__ import annotations

import os
import subprocess
import sys

from nat_dynamo_plugin.processes import is_dead, start_of, this_machine, this_process


def test_this_process_is_alive() -> None:
    assert not is_dead(this_process())


def test_a_later_process_with_the_same_id_is_another_one() -> None:
    name, _, started = this_process().rpartition(":")
    assert is_dead(f"{name}:{int(started) + 1}")


def test_one_that_was_killed_is_dead_though_nobody_has_waited_for_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = f"{this_machine()}:{process.pid}:{start_of(process.pid)}"
    assert not is_dead(name)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert is_dead(name)
    process.communicate()
    assert is_dead(name)


def test_of_another_machine_nothing_is_known() -> None:
    assert not is_dead(f"elsewhere-1:{os.getpid()}:1")
    assert not is_dead("")
