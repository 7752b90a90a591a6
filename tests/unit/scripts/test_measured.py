"""The runner behind `make demo`: exit status, signals and what it counts."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "measured.py"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *command], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [("pass", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 128 + 9)],
)
def test_ends_with_the_commands_status(code: str, status: int) -> None:
    done = run(sys.executable, "-c", code)
    assert done.returncode == status
    assert "wall time" in done.stdout


def test_no_such_command() -> None:
    done = run("no-such-command-anywhere")
    assert done.returncode == 127
    assert "no-such-command-anywhere" in done.stderr


def test_no_command() -> None:
    assert run().returncode == 2


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux counts all processes")
def test_memory_of_children_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("measured", SCRIPT)
    assert spec is not None and spec.loader is not None
    measured = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measured)
    child = "b = bytearray(b'x') * 120_000_000; print(flush=True); import sys; sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()  # the child has its memory
        tree = measured._tree

        def tree_and_end(root: int) -> list[int]:
            assert process.stdin is not None
            found: list[int] = tree(root)
            # The child lives on until it has been counted.
            if len(found) == 2 and counted:
                process.stdin.close()
            counted.append(root)
            return found

        counted: list[int] = []
        monkeypatch.setattr(measured, "_tree", tree_and_end)
        monkeypatch.setattr(measured, "_PERIOD_S", 0.01)
        status, peak = measured.follow(process)
    assert status == 0
    assert 120e6 <= peak < 400e6


def test_sigterm_reaches_the_command() -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "print('ready', flush=True)\n"
        "time.sleep(50)"
    )
    process = subprocess.Popen([sys.executable, str(SCRIPT), sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as out:
        assert out.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 3
