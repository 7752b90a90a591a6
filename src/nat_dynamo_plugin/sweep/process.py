"""Names for machines and processes that no other one has, and whether a process by such a name is gone."""

from __future__ import annotations

import contextlib
import os
import platform
import uuid
from pathlib import Path


def this_machine() -> str:
    """A name for this machine that no other one has."""
    return f"{platform.node()}-{uuid.getnode():x}"


def _started(pid: int) -> str:
    """When a process started, as far as the system tells: process ids are used again."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def this_process() -> str:
    """A name for this process that no other one has."""
    return f"{this_machine()}:{os.getpid()}:{_started(os.getpid())}"


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
    return _started(int(pid)) != started
