"""One start of an embedded Dynamo: its files, its port, its processes, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.files import make_private
from nat_dynamo_plugin.local.commands import (
    environment,
    frontend_command,
    home_folder,
    request_trace_environment,
    temporary_folder,
)
from nat_dynamo_plugin.local.engines.engine import Command, Engine
from nat_dynamo_plugin.local.errors import INSTALL_HINT, LocalDynamoError
from nat_dynamo_plugin.local.supervisor import remove_shared_memory

POLL_S = 0.02
"""Seconds between two looks at processes that are waited for."""

_GRACE_S = 2.0  # what Dynamo has to write its request trace and leave; it takes .3 s
_STOP_S = 5.0
_LOG_TAIL_LINES = 15
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Instance:
    """The processes of one start, from before they are there until after they are gone.

    Attributes:
        port: the frontend's HTTP port.
        work_dir: the instance's own temporary directory.
        log_dir: where the logs are.
        pids: process ids by name.
        failure: what went wrong with the processes, first of all, if anything did.
        ended: `end` has been called.
    """

    def __init__(self, config: LocalDynamoConfig) -> None:
        """Keep the settings; nothing is made or started."""
        self.port: int | None = None
        self.work_dir: Path | None = None
        self.log_dir: Path | None = None
        self.pids: dict[str, int] = {}
        self.failure: str | None = None
        self.ended = False
        self._config = config
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._events = b""

    @property
    def runs(self) -> bool:
        """Whether the processes have been started and not been ended."""
        return self._supervisor is not None

    @contextmanager
    def launched(self, engine: Engine) -> Iterator[None]:
        """Write the files, start the supervisor, and keep the HTTP port until the block ends: the frontend has it then.

        Args:
            engine: the workers, prepared.

        Raises:
            LocalDynamoError: a file cannot be written, there is no port, or the start was given up.
        """
        if self.ended:
            raise LocalDynamoError("the embedded Dynamo was stopped before it had started")
        with _port(self._config.port) as self.port:
            try:
                spec_file = self._write_files(self.port, engine)
                self._start_supervisor(spec_file)
            except OSError as error:
                raise LocalDynamoError(f"the embedded Dynamo cannot be started: {error}") from error
            yield

    def _write_files(self, port: int, engine: Engine) -> Path:
        config = self._config
        work_dir = self.work_dir = Path(tempfile.mkdtemp(prefix="nat-dynamo-"))
        if config.request_trace is not None:
            with _named("request_trace", config.request_trace, "no such file can be written"):
                config.request_trace.parent.mkdir(parents=True, exist_ok=True)
                make_private(config.request_trace)
        self.log_dir = config.log_dir.absolute() / work_dir.name if config.log_dir else work_dir / "logs"
        with _named("log_dir", config.log_dir, "no folder for logs can be made there"):
            self.log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (home_folder(work_dir), temporary_folder(work_dir)):
            folder.mkdir()
        frontend = Command("frontend", frontend_command(config, port), request_trace_environment(config))
        spec = {
            "work_dir": str(work_dir),
            "parent_pid": os.getpid(),
            "grace_s": _GRACE_S,
            "commands": [
                {"name": one.name, "argv": one.argv, "env": one.env, "log": str(self.log_dir / f"{one.name}.log")}
                for one in (frontend, *engine.write(work_dir))
            ],
        }
        spec_file = work_dir / "spec.json"
        spec_file.write_text(json.dumps(spec, indent=1))
        return spec_file

    def _start_supervisor(self, spec_file: Path) -> None:
        assert self.work_dir is not None and self.log_dir is not None
        with (self.log_dir / "supervisor.log").open("ab") as log:
            supervisor = self._supervisor = subprocess.Popen(
                [sys.executable, "-P", str(_SUPERVISOR), str(spec_file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(self._config, self.work_dir),
                start_new_session=True,
                bufsize=0,
            )
        assert supervisor.stdout is not None
        os.set_blocking(supervisor.stdout.fileno(), False)
        self.pids["supervisor"] = supervisor.pid

    def check_alive(self) -> None:
        """Fail if a process has died.

        Raises:
            LocalDynamoError: names the process and quotes its log; or nothing runs.
        """
        if self._supervisor is None:
            raise LocalDynamoError("the embedded Dynamo is not running")
        self._read_events(self._supervisor)
        if self.failure is not None:
            raise LocalDynamoError(self.describe_failure())

    def _read_events(self, supervisor: subprocess.Popen[bytes]) -> None:
        assert supervisor.stdout is not None
        gone = supervisor.poll() is not None
        with contextlib.suppress(BlockingIOError):
            while received := os.read(supervisor.stdout.fileno(), 65536):
                self._events += received
        *lines, self._events = self._events.split(b"\n")
        for line in lines:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "started":
                self.pids.update(event["pids"])
            elif event["event"] == "exited":
                self.failure = self.failure or f"the {event['name']} {_how_it_ended(event['returncode'])}"
            else:
                self.failure = self.failure or f"the supervisor failed: {event['reason']}"
        if gone:
            self.failure = self.failure or f"the supervisor {_how_it_ended(supervisor.returncode)}"

    def logs(self) -> dict[str, str]:
        """The text of each process's log so far, by process name; empty when there are none, or none any more."""
        if self.log_dir is None or not self.log_dir.is_dir():
            return {}
        return {
            file.stem: _ANSI.sub("", file.read_text(encoding="utf-8", errors="replace"))
            for file in sorted(self.log_dir.glob("*.log"))
        }

    def describe_failure(self) -> str:
        """The failure, with the ends of the logs and where they are."""
        parts = [f"the embedded Dynamo failed: {self.failure}"]
        logs = self.logs()
        for name, text in logs.items():
            tail = text.rstrip().splitlines()[-_LOG_TAIL_LINES:]
            if tail:
                parts.append(f"--- last lines of {name}.log")
                parts += tail
        if any("ModuleNotFoundError" in text for text in logs.values()):
            parts.append(f"Something that Dynamo needs is missing: {INSTALL_HINT}")
        parts.append(f"--- logs are kept in {self.log_dir}")
        return "\n".join(parts)

    async def end(self, *, keep: bool) -> None:
        """Stop all processes (some tenths of a second) and remove the work directory; harmless if done before.

        Args:
            keep: leave the work directory, if there were processes, for the sake of their logs.
        """
        self.ended = True
        supervisor, self._supervisor = self._supervisor, None
        try:
            if supervisor is not None:
                await _stop(supervisor, keep=keep)
        finally:
            if self.work_dir is not None:  # also in case the supervisor was killed
                remove_shared_memory(self.work_dir)
                if not (keep and supervisor is not None):
                    shutil.rmtree(self.work_dir, ignore_errors=True)
            self.work_dir = self.port = None
            self.pids = {}


async def _stop(supervisor: subprocess.Popen[bytes], *, keep: bool) -> None:
    """End the supervisor and, through it, its children; also if this is cancelled."""
    assert supervisor.stdin is not None and supervisor.stdout is not None
    with contextlib.suppress(OSError):  # it may be gone already
        # "stop" as well as closing it: a fork of this process may hold the pipe open.
        supervisor.stdin.write(b"keep\nstop\n" if keep else b"stop\n")
        supervisor.stdin.close()
    deadline = time.monotonic() + _STOP_S
    try:
        while supervisor.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - a process, no event
            await asyncio.sleep(POLL_S)
    finally:  # also when this wait is cancelled: nothing may be left then either
        with contextlib.suppress(subprocess.TimeoutExpired):
            supervisor.wait(max(0.0, deadline - time.monotonic()))
        if supervisor.poll() is None:  # it hangs: the kernel kills its children with it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(supervisor.pid, signal.SIGKILL)
            supervisor.wait()
        supervisor.stdout.close()


@contextmanager
def _port(asked: int | None) -> Iterator[int]:
    """A TCP port of 127.0.0.1, this one or a free one, that nobody else gets while the block runs."""
    with socket.socket() as held:
        # Bound but not listening: the kernel gives the port to nobody else, and the frontend, which sets SO_REUSEADDR
        # too, can still bind it and listen.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(("127.0.0.1", asked or 0))
            if asked is not None:
                _refuse_if_served(asked)
        except OSError as error:
            if asked is not None:
                raise LocalDynamoError(f"`local`: port={asked} of 127.0.0.1 can not be had: {error}") from error
            raise LocalDynamoError(
                f"the embedded Dynamo needs a free TCP port on 127.0.0.1, and the kernel has none: {error}; end what "
                "uses them, or widen net.ipv4.ip_local_port_range"
            ) from error
        port: int = held.getsockname()[1]
        yield port


def _refuse_if_served(port: int) -> None:
    """Refuse a port that somebody listens on; with SO_REUSEADDR, which the frontend sets, it could be bound even so.

    Raises:
        OSError: somebody does.
    """
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


@contextmanager
def _named(field: str, value: Path | None, problem: str) -> Iterator[None]:
    """Let an OSError name the field of `local` that it is about, if that is set."""
    try:
        yield
    except OSError as error:
        if value is None:
            raise
        raise LocalDynamoError(f"`local`: {field}={str(value)!r}: {problem}: {error}") from error


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
