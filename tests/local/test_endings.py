"""Whichever way a run ends, no process and no directory of its embedded Dynamo is left."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import types
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig, LocalDynamoError, server

# Says where its instance works, then does what the test wants. What it does at a signal does not depend on who started
# the tests: under nohup, and in the background of a shell, some signals are ignored.
PROGRAM = """
import asyncio, os, signal, sys, time
deaf = sys.argv[1] == "deaf"
signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}
for number in signals:
    signal.signal(number, signal.SIG_IGN if deaf else signal.SIG_DFL)
if not deaf:
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_SETMASK, signals if deaf else ())

from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig

async def main(way):
    dynamo = LocalDynamo(LocalDynamoConfig(workers=1))
    if way == "starting":
        wait = dynamo._wait_until_ready
        def tell_and_wait(engine):
            print(dynamo.work_dir, flush=True)
            return wait()
        dynamo._wait_until_ready = tell_and_wait
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
        if way == "deaf":
            await asyncio.to_thread(sys.stdin.readline)
            dynamo.check_alive()
        elif way != "success":
            await asyncio.sleep(3600)

asyncio.run(main(sys.argv[1]))
"""


def run(way: str) -> tuple[subprocess.Popen[str], Path]:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    line = program.stdout.readline().strip()
    if not line:
        raise AssertionError(program.communicate()[1])
    return program, Path(line)


def finish(program: subprocess.Popen[str], place: Path, helpers: Any, status: int) -> str:
    try:
        error = program.communicate(timeout=120)[1]
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


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def test_signals_that_the_program_ignores_do_not_stop_dynamo_either(helpers: Any) -> None:
    program, place = run("deaf")
    for number in SIGNALS:
        os.killpg(program.pid, number)
    assert program.stdin is not None
    program.stdin.write("end\n")
    finish(program, place, helpers, 0)


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_that_the_program_ignores_stop_the_supervisor(number: signal.Signals, helpers: Any) -> None:
    program, place = run("deaf")
    try:
        os.kill(supervisor_of(place, helpers), number)
        helpers.wait_until(lambda: not place.exists(), f"{place} gone")
        helpers.wait_until(lambda: helpers.processes_of(place) == [], "its processes gone")
    finally:
        program.kill()
        program.communicate()


def supervisor_of(place: Path, helpers: Any) -> int:
    [pid] = [p for p in helpers.processes_of(place) if b"supervisor.py" in Path(f"/proc/{p}/cmdline").read_bytes()]
    return int(pid)


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


@types.coroutine
def cancelled_when(work: Awaitable[None], holds: Callable[[], bool]) -> Generator[Any, Any, None]:
    """Do some work in this task, and cancel the task as soon as the work waits for something while `holds()`."""
    steps = work.__await__()
    task = asyncio.current_task()
    assert task is not None
    go_on: Callable[[], Any] = lambda: next(steps)  # noqa: E731
    while True:
        try:
            awaited = go_on()
        except StopIteration:
            return
        if not task.cancelling() and holds():
            task.cancel()
        try:
            yield awaited
            go_on = lambda: next(steps)  # noqa: E731
        except BaseException as error:
            go_on = lambda error=error: steps.throw(error)  # noqa: E731


PHASES = ["prepares", "has launched", "knows its processes", "has heard /v1/models", "has heard /health"]


@pytest.mark.parametrize("phase", PHASES)
async def test_a_start_can_be_cancelled_anywhere(
    phase: str, helpers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dynamo = LocalDynamo(LocalDynamoConfig(workers=1))
    heard: list[str] = []

    async def note(response: httpx.Response) -> None:
        heard.append(response.url.path)
        await asyncio.sleep(0)  # a point to be cancelled at

    client = server._http_client

    def listening() -> httpx.AsyncClient:
        made = client()
        made.event_hooks = {"response": [note]}
        return made

    monkeypatch.setattr(server, "_http_client", listening)
    reached = {
        "prepares": lambda: True,
        "has launched": lambda: "supervisor" in dynamo.pids,
        "knows its processes": lambda: "mocker" in dynamo.pids,
        "has heard /v1/models": lambda: "/v1/models" in heard,
        "has heard /health": lambda: "/health" in heard,
    }[phase]
    places: list[Path] = []

    def here() -> bool:
        places[:] = helpers.entries(tmp_path)
        return reached()

    try:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(_run(cancelled_when(dynamo.start(), here)))
        assert bool(places) == (phase != "prepares")
        assert helpers.entries(tmp_path) == []
        assert not any(helpers.processes_of(place) for place in places)
        with pytest.raises(LocalDynamoError, match="not running"):
            dynamo.check_alive()
    finally:
        await dynamo.stop()


async def _run(work: Awaitable[None]) -> None:
    await work


async def test_a_start_can_be_stopped(helpers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dynamo = LocalDynamo(LocalDynamoConfig(workers=1))
    start = asyncio.create_task(dynamo.start())
    await asyncio.sleep(0)  # it runs up to its first wait
    await dynamo.stop()
    with pytest.raises(LocalDynamoError, match="stopped before it had started"):
        await start
    start = asyncio.create_task(dynamo.start())
    while not helpers.entries(tmp_path):  # noqa: ASYNC110 - files, no event
        await asyncio.sleep(0.01)
    await dynamo.stop()
    with pytest.raises(LocalDynamoError, match="not running"):
        await start
    assert helpers.entries(tmp_path) == []


async def test_a_second_start_is_refused_while_the_first_is_at_it(helpers: Any) -> None:
    dynamo = LocalDynamo(LocalDynamoConfig(workers=1))
    first, second = await asyncio.gather(dynamo.start(), dynamo.start(), return_exceptions=True)
    place = dynamo.work_dir
    await dynamo.stop()
    assert first is None
    assert isinstance(second, LocalDynamoError) and "running already" in str(second)
    assert helpers.is_gone(place)


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
    monkeypatch.setattr("nat_dynamo_plugin.local.instance._STOP_S", 0.2)
    dynamo = LocalDynamo(LocalDynamoConfig(workers=1))
    await dynamo.start()
    place = dynamo.work_dir
    os.kill(dynamo.pids["supervisor"], signal.SIGSTOP)
    await dynamo.stop()
    helpers.wait_until(lambda: helpers.is_gone(place), f"{place} and its processes gone")
