"""Which embedded Dynamos `up` has started and are running: a file each, which its own process writes and removes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nat_dynamo_plugin.files import write_text
from nat_dynamo_plugin.processes import is_dead, name_of

STATE_FOLDER = "XDG_STATE_HOME"
"""Folder of the folder `nat-dynamo` in which `nat dynamo up` keeps what runs; `~/.local/state` if not set."""


@dataclass(frozen=True, slots=True)
class Running:
    """One of them.

    Attributes:
        pid: the process that keeps it.
        owner: its name as `processes.this_process` gives it, which no later process of this id has.
        port: the frontend's; of one that is starting the one that was asked for, 0 for any.
        model: the model's name.
        workers: how many there are.
        work_dir: its temporary folder.
        log_dir: where its processes log.
        starting: whether it does not serve yet, and has no folders.
        engine: `mocker` or `vllm`.
    """

    pid: int
    owner: str
    port: int
    model: str
    workers: int
    work_dir: str
    log_dir: str
    starting: bool = False
    engine: str = "mocker"

    @property
    def base_url(self) -> str:
        """What OpenAI clients call base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def to_dict(self) -> dict[str, Any]:
        """What is shown as JSON."""
        return asdict(self) | {"base_url": self.base_url}

    @property
    def name(self) -> str:
        """What it is called where it is told of."""
        if not self.starting:
            return self.base_url
        return f"the one that was starting{f' on port {self.port}' if self.port else ''} (process {self.pid})"

    @property
    def lives(self) -> bool:
        """Whether the process that keeps it is there."""
        return not is_dead(self.owner)


def beginning(pid: int, *, port: int | None, model: str, workers: int) -> Running:
    """One whose process has just been started."""
    return Running(pid, name_of(pid), port or 0, model, workers, work_dir="", log_dir="", starting=True)


def folder() -> Path:
    """Where the files are: `nat-dynamo` in `XDG_STATE_HOME`, else in `~/.local/state`."""
    state = os.environ.get(STATE_FOLDER) or Path.home() / ".local" / "state"
    return Path(state) / "nat-dynamo"


def keep(running: Running) -> Path:
    """Write one's file, for its owner only.

    Raises:
        OSError: it can not be written.
    """
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    file = _file(running)
    write_text(file, json.dumps(asdict(running)))
    return file


def forget(running: Running) -> None:
    """Remove one's file, unless another one has the port by now."""
    file = _file(running)
    if _read(file) == running:
        file.unlink(missing_ok=True)


def _file(running: Running) -> Path:
    return folder() / (f"starting-{running.pid}.json" if running.starting else f"{running.port}.json")


def _read(file: Path) -> Running | None:
    try:
        return Running(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def all_running() -> tuple[list[Running], list[Running]]:
    """Those that run, by port, and those whose process was killed; the files of the latter are removed."""
    found = sorted(
        (one for one in map(_read, folder().glob("*.json")) if one is not None), key=lambda running: running.port
    )
    gone = [one for one in found if not one.lives]
    for one in gone:
        forget(one)
    return [one for one in found if one not in gone], gone
