"""The runner behind `make demo`: exit status, signals and what it counts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "measured.py"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *command], capture_output=True, text=True, timeout=120, check=False
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


@pytest.fixture
def measured() -> Iterator[ModuleType]:
    """The script as a module; what it does with signals is undone."""
    spec = spec_from_file_location("measured", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield module
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux counts all processes")
def test_memory_of_children_counts(
    measured: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = tmp_path / "seen"
    pss_bytes = measured._pss_bytes

    def look(pid: int) -> int:
        size = int(pss_bytes(pid))
        if size > 120_000_000:
            seen.touch()
        return size

    monkeypatch.setattr(measured, "_PERIOD_S", 0.01)
    monkeypatch.setattr(measured, "_pss_bytes", look)
    # It lives until it has been seen; if nobody looks at children, it gives up in the end.
    child = (
        "import pathlib, time; b = bytearray(b'x') * 120_000_000; end = time.monotonic() + 60\n"
        f"while not pathlib.Path({str(seen)!r}).exists() and time.monotonic() < end: time.sleep(.01)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert measured.main([sys.executable, "-c", parent]) == 0
    match = re.search(r"peak memory ([\d,]+) MB \(all processes together\)", capsys.readouterr().out)
    assert match is not None
    assert 120 <= int(match[1].replace(",", "")) < 400


END_AT_SIGNAL = """
import signal, sys
signal.signal(signal.{name}, lambda *_: sys.exit(3))
print('ready', flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_reaches_the_command(name: str) -> None:
    number = signal.Signals[name]
    # Whoever runs the tests may ignore it, as nohup does.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), sys.executable, "-c", END_AT_SIGNAL.format(name=name)], stdout=subprocess.PIPE
        )
    finally:
        signal.signal(number, before)
    assert process.stdout is not None
    with process.stdout as out:
        assert out.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(timeout=120) == 3


def test_a_signal_that_comes_before_the_command_reaches_it(
    measured: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subprocess.Popen

    def start_late(command: list[str]) -> subprocess.Popen[bytes]:
        os.kill(os.getpid(), signal.SIGTERM)
        return start(command)

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(measured.subprocess, "Popen", start_late)
    assert measured.main([sys.executable, "-c", "import signal; signal.pause()"]) == 128 + signal.SIGTERM


def test_what_is_ignored_stays_ignored(measured: ModuleType) -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    own = "import os, signal; [os.kill(os.getpid(), n) for n in (signal.SIGHUP, signal.SIGINT)]"
    assert measured.main([sys.executable, "-c", own]) == 0
    assert signal.getsignal(signal.SIGHUP) is signal.getsignal(signal.SIGINT) is signal.SIG_IGN
