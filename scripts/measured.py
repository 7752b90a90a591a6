"""Run a command and print what it took: wall time, and peak memory of all its processes together.

    python scripts/measured.py COMMAND [ARGUMENT ...]

Ends with the command's own exit status (128 + N if signal N ended it). Memory is the proportional set size (PSS,
`/proc/PID/smaps_rollup`) summed over the command and all its descendants, sampled twice a second, so a page that
several processes share counts once. The kernel's own `ru_maxrss` knows only the largest single process; it is printed
where `/proc` is not Linux's.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType

_PERIOD_S = 0.5
_PROC = Path("/proc")


def _tree(root: int) -> list[int]:
    """The process `root` and all its descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:  # it has ended
                continue
            # "pid (name) state ppid ...": a name may hold spaces and parentheses.
            children[int(stat.rpartition(")")[2].split()[1])].append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children[pid])
    return found


def _pss_bytes(pid: int) -> int:
    """Proportional set size of one process in bytes; 0 once it has ended."""
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def follow(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Wait for a process: its status, and the peak memory in bytes of it and its descendants (0 if not known)."""
    peak = 0
    while True:
        try:
            return process.wait(timeout=_PERIOD_S), peak
        except subprocess.TimeoutExpired:
            if (_PROC / "self" / "smaps_rollup").exists():
                peak = max(peak, sum(_pss_bytes(pid) for pid in _tree(process.pid)))


def main(command: list[str]) -> int:
    if not command:
        print("usage: python scripts/measured.py COMMAND [ARGUMENT ...]", file=sys.stderr)
        return 2
    started = time.monotonic()
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        print(f"error: {command[0]} can not be run: {error}", file=sys.stderr)
        return 127

    def forward(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    # Ctrl-C reaches the command from the terminal itself; it decides how to end, and this waits for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGHUP, forward)

    status, peak = follow(process)
    elapsed = time.monotonic() - started

    if peak:
        memory = f"{peak / 1e6:,.0f} MB (all processes together)"
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
        memory = f"{largest / 1e6:,.0f} MB (largest process)"
    print(f"\nwall time {_duration(elapsed)}, peak memory {memory}", flush=True)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
