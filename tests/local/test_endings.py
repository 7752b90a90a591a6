"""Whichever way a run ends, no process and no directory of its embedded Dynamo is left."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig, LocalDynamoError

# Says where its instance works, then does what the test wants.
PROGRAM = """
import asyncio, os, sys, time
from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig

async def main(way):
    dynamo = LocalDynamo(LocalDynamoConfig(workers=1))
    if way == "starting":
        launch = dynamo._launch
        def launch_and_tell(*args):
            held = launch(*args)
            print(dynamo.work_dir, flush=True)
            return held
        dynamo._launch = launch_and_tell
    async with dynamo:
        if way == "fork" and os.fork() == 0:
            time.sleep(3600)  # a child that holds every pipe of its parent
        print(dynamo.work_dir, flush=True)
        if way == "exception":
            raise RuntimeError("of the program's own")
        if way == "exit":
            sys.exit(3)
        if way == "hard exit":
            os._exit(4)
        if way != "success":
            await asyncio.sleep(3600)

asyncio.run(main(sys.argv[1]))
"""


def run(way: str, *, group: bool = True) -> tuple[subprocess.Popen[str], Path]:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, way],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=group,
    )
    assert program.stdout is not None
    line = program.stdout.readline().strip()
    if not line:
        raise AssertionError(program.communicate()[1])
    return program, Path(line)


def finish(program: subprocess.Popen[str], place: Path, helpers: Any, status: int) -> str:
    try:
        error = program.communicate(timeout=30)[1]
        assert program.returncode == status, error
        helpers.wait_until(lambda: helpers.is_gone(place), f"{place} and its processes gone")
    finally:
        if program.poll() is None:
            program.kill()
            program.communicate()
    return error


@pytest.mark.parametrize(("way", "status"), [("success", 0), ("exception", 1), ("exit", 3), ("hard exit", 4)])
def test_the_program_ends_by_itself(way: str, status: int, helpers: Any) -> None:
    program, place = run(way)
    error = finish(program, place, helpers, status)
    if way == "exception":
        assert "RuntimeError: of the program's own" in error


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL), (signal.SIGHUP, -signal.SIGHUP)],
)
def test_the_program_is_killed(number: signal.Signals, status: int, helpers: Any) -> None:
    program, place = run("wait")
    assert len(helpers.processes_of(place)) >= 3
    program.send_signal(number)
    finish(program, place, helpers, status)


def test_ctrl_c(helpers: Any) -> None:
    """As a terminal does it: to the whole process group, in which Dynamo is not."""
    program, place = run("wait")
    os.killpg(program.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in finish(program, place, helpers, -signal.SIGINT)


def test_ctrl_c_twice(helpers: Any) -> None:
    program, place = run("wait")
    os.killpg(program.pid, signal.SIGINT)
    os.killpg(program.pid, signal.SIGINT)
    finish(program, place, helpers, -signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_program_is_killed_while_dynamo_starts(number: signal.Signals, helpers: Any) -> None:
    program, place = run("starting")
    program.send_signal(number)
    finish(program, place, helpers, -number)


def test_a_fork_that_holds_the_pipes_does_not_keep_it_alive(helpers: Any) -> None:
    program, place = run("fork")
    fork = int(Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()[-1])
    try:
        program.kill()
        assert program.stdout is not None and program.stderr is not None
        program.wait()
        helpers.wait_until(lambda: helpers.is_gone(place), f"{place} and its processes gone")
    finally:
        os.kill(fork, signal.SIGKILL)
        program.communicate()


async def test_a_start_can_be_cancelled_anywhere(helpers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for delay in (0.0, 0.01, 0.1, 0.4):
        task = asyncio.create_task(LocalDynamo(LocalDynamoConfig(workers=1)).start())
        await asyncio.sleep(delay)
        places = helpers.entries(tmp_path)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert helpers.entries(tmp_path) == []
        assert not any(helpers.processes_of(place) for place in places)


async def test_a_stop_that_is_cancelled_stops_all_the_same(helpers: Any) -> None:
    dynamo = LocalDynamo(LocalDynamoConfig(workers=1))
    await dynamo.start()
    place = dynamo.work_dir
    task = asyncio.create_task(dynamo.stop())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert helpers.is_gone(place)


def test_another_event_loop_may_end_it(helpers: Any) -> None:
    dynamo = LocalDynamo(LocalDynamoConfig(workers=1))
    asyncio.run(dynamo.start())
    place = dynamo.work_dir
    asyncio.run(dynamo.stop())
    assert helpers.is_gone(place)


@pytest.mark.parametrize("victim", ["frontend", "mocker", "supervisor"])
async def test_a_process_that_dies_is_noticed_and_its_log_kept(
    victim: str, helpers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with LocalDynamo(LocalDynamoConfig(workers=1)) as dynamo:
        place = dynamo.work_dir
        os.kill(dynamo.pids[victim], signal.SIGKILL)

        def noticed() -> bool:
            try:
                dynamo.check_alive()
            except LocalDynamoError as error:
                assert f"the {victim} was killed by SIGKILL" in str(error)
                return True
            return False

        helpers.wait_until(noticed, f"death of the {victim} noticed")
        with caplog.at_level(logging.ERROR, logger="nat_dynamo_plugin"):
            await dynamo.stop()
    assert f"the {victim} was killed by SIGKILL" in caplog.text
    assert f"logs are kept in {place / 'logs'}" in caplog.text
    assert (place / "logs" / "frontend.log").read_text()
    helpers.wait_until(lambda: not helpers.processes_of(place), "all processes gone")


async def test_a_supervisor_that_hangs_is_killed_with_all_it_runs(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nat_dynamo_plugin.local.server._STOP_S", 0.2)
    dynamo = LocalDynamo(LocalDynamoConfig(workers=1))
    await dynamo.start()
    place = dynamo.work_dir
    os.kill(dynamo.pids["supervisor"], signal.SIGSTOP)
    await dynamo.stop()
    helpers.wait_until(lambda: helpers.is_gone(place), f"{place} and its processes gone")
