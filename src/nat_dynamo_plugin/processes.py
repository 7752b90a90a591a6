"""Processes by names that no other process has, so that one which is gone is not taken for another with its id."""

from __future__ import annotations

import contextlib
import os
import platform
import uuid
from pathlib import Path


def this_machine() -> str:
    """A name for this machine that no other one has."""
    return f"{platform.node()}-{uuid.getnode():x}"


def start_of(pid: int) -> str:
    """When a process started, in ticks since boot; empty of one that has ended, and where the system does not tell.

    Process ids are used again. One that has ended and that nobody has waited for counts as ended.
    """
    with contextlib.suppress(OSError, IndexError):
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if state not in ("Z", "X"):
            return rest[18]
    return ""


def this_process() -> str:
    """A name for this process that no other one has."""
    return name_of(os.getpid())


def name_of(pid: int) -> str:
    """A name for a running process of this machine that no other one has."""
    return f"{this_machine()}:{pid}:{start_of(pid)}"


def is_dead(owner: str) -> bool:
    """Whether a process named by `this_process` was one of this machine and is gone."""
    machine, _, rest = owner.partition(":")
    pid, _, started = rest.partition(":")
    if machine != this_machine() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return start_of(int(pid)) != started
