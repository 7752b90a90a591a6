"""Becomes a command that the kernel kills as soon as the process that started it is gone (PR_SET_PDEATHSIG).

Run as a file: `python -I -S tethered.py PARENT_PID COMMAND [ARGUMENT ...]`. What is asked of the kernel here survives
the exec, so the starter need not run Python code between its fork and the exec, which is unsafe beside threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Ask to be killed with the parent, and become the command."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == int(sys.argv[1]):  # otherwise the parent went before the request was made
        os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
