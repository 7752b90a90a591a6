"""Names of processes: who is dead, and who only has a dead one's number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nat_dynamo_plugin.sweep.process import is_dead, this_machine
from nat_dynamo_plugin.sweep.process import this_process as me


def test_who_is_dead() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert is_dead(f"{this_machine()}:{ended.pid}:1")
    assert not is_dead(me())
    assert not is_dead(f"another-machine:{ended.pid}:1")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system tells no start of processes")
def test_a_process_id_that_is_used_again_is_another_process() -> None:
    assert is_dead(f"{this_machine()}:{os.getpid()}:1")
