"""The journal of an evaluation: what was done, written as it comes, so that no end of the process takes it away.

JSON lines, append-only, for the owner only. The first line says which evaluation it is, then come, as they happen, the
record of each LLM call and each finished question, and at last a line that says that all files of the run are written.
A line is whole or it is ignored: one that a kill or a full disk cut short takes nothing else with it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

logger = logging.getLogger(__name__)

JOURNAL = "journal.jsonl"
"""Name of the file in an evaluation's output folder."""

VERSION = 1


class JournalBusy(Exception):
    """Another evaluation is writing this journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One finished question.

    Attributes:
        id: the dataset's.
        asked: `digest` of the question's input.
        output: the workflow's output; JSON-ready.
        trajectory: the intermediate steps, as plain data.
        failure: kind of failure in one word, `None` if the question was answered.
        error: what went wrong, in the server's or the workflow's words.
        restorable: whether `output` came through JSON unchanged, so that a run can go on with it.
    """

    id: str
    asked: str
    output: Any = None
    trajectory: list[Any] = field(default_factory=list)
    failure: str | None = None
    error: str | None = None
    restorable: bool = True


@dataclass(slots=True)
class Entries:
    """What a journal says. `questions` has the last word on each, by id; `runs` counts those that went on, and one."""

    fingerprint: str | None = None
    total: int | None = None
    questions: dict[str, Answered] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)
    runs: int = 0
    finished: bool = False

    @property
    def failures(self) -> Counter[str]:
        """Failed questions by kind of failure."""
        return Counter(one.failure for one in self.questions.values() if one.failure is not None)

    @property
    def answered(self) -> dict[str, Answered]:
        """The questions that need not be asked again."""
        return {key: one for key, one in self.questions.items() if one.failure is None and one.restorable}

    @property
    def is_open(self) -> bool:
        """Whether there is something to go on with: questions answered, and others cut or failed, or files missing."""
        return bool(self.answered) and not (self.finished and not self.failures)


def digest(value: Any) -> str:
    """A short name of a value that has the same for equal values, also in another process."""
    return sha256(_encoded(value)).hexdigest()[:16]


def read(path: Path) -> Entries:
    """What a journal says; nothing if there is none. A line that is torn or not ours is passed over."""
    entries = Entries()
    for row in _rows(path):
        match row:
            case {"journal": int(), "fingerprint": str(fingerprint)}:
                # A run that goes on says so again.
                entries.fingerprint, entries.finished = fingerprint, False
                entries.total = row.get("questions")
                entries.runs += 1
            case {"call": dict(call)}:
                entries.calls.append(call)
            case {"question": str(key), "asked": str(asked)}:
                trajectory = row.get("trajectory")
                entries.questions[key] = Answered(
                    id=key,
                    asked=asked,
                    output=row.get("output"),
                    trajectory=trajectory if isinstance(trajectory, list) else [],
                    failure=row.get("failure"),
                    error=row.get("error"),
                    restorable=row.get("restorable") is not False and "output" in row,
                )
            case {"finished": True}:
                entries.finished = True
    return entries


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict):
                    yield row
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            logger.warning("The journal %s can not be read: %s", path, error)


class Journal:
    """An open journal. Nothing raises once it is open: a full disk costs a warning and what could not be written."""

    def __init__(self, path: Path) -> None:
        """Open for appending, or make it (mode 0600) and the folder.

        Raises:
            JournalBusy: another process writes it.
            OSError: it can not be opened.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(self._file, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            if isinstance(error, BlockingIOError):
                raise JournalBusy(f"another evaluation is writing {path}") from None
            raise
        size = os.fstat(self._file).st_size
        # What a kill cut short must not run into the next line.
        self._torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        self._warned = False

    def begin(self, fingerprint: str, questions: int, *, keep: bool) -> None:
        """Say which evaluation it is, of how many questions; unless `keep`, what was there is gone."""
        if not keep:
            os.ftruncate(self._file, 0)
            self._torn = False
        self._write({"journal": VERSION, "fingerprint": fingerprint, "questions": questions, "at": time.time()})

    def call(self, asked: str, record: Mapping[str, Any]) -> None:
        """Note an LLM call that has ended, of the question whose input has this digest."""
        self._write({"call": record, "asked": asked})

    def question(self, answered: Answered) -> None:
        """Note a finished question."""
        row = {name: getattr(answered, name) for name in Answered.__slots__ if name != "id"}
        self._write({"question": answered.id, "at": time.time()} | row)

    def finish(self) -> None:
        """Say that the evaluation's own files are written, so that this one is not needed to go on."""
        self._write({"finished": True, "at": time.time()})

    def slim(self) -> None:
        """Take the answers and steps out, which stand in the evaluation's own files and would be here for going on."""
        slimmed = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            descriptor = os.open(slimmed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as new, self.path.open("rb") as old:
                for line in old:
                    new.write(_slimmed(line) if line.startswith(b'{"question"') else line)
            slimmed.replace(self.path)
        except OSError as error:
            slimmed.unlink(missing_ok=True)
            logger.debug("The journal %s stays as large as it is: %s", self.path, error)

    def close(self) -> None:
        """Let others have it. Does nothing the second time."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, row: Mapping[str, Any]) -> None:
        if self._file < 0:
            return
        data = (b"\n" if self._torn else b"") + _encoded(row) + b"\n"
        self._torn = True
        try:
            while data:
                data = data[os.write(self._file, data) :]
            self._torn = False
        except OSError as error:
            if not self._warned:
                self._warned = True
                logger.warning(
                    "The journal %s can not be written: %s. The evaluation goes on; what is missing there would be "
                    "repeated if it had to be resumed (said once)",
                    self.path,
                    error,
                )


def set_aside(path: Path) -> Path:
    """Rename a journal to the first free `journal-N.jsonl` beside it."""
    number = 1
    while (other := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return path.rename(other)


def _slimmed(line: bytes) -> bytes:
    try:
        row = json.loads(line)
    except ValueError:
        return b""
    return _encoded({key: value for key, value in row.items() if key not in ("output", "trajectory")}) + b"\n"


def survives_json(value: Any) -> bool:
    """Whether a value comes back from JSON as it was."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def _encoded(value: Any) -> bytes:
    """One line of JSON; what JSON has not is a text. Pydantic's own is used because trajectories are large."""
    try:
        return to_json(value, inf_nan_mode="constants", serialize_unknown=True)
    except (PydanticSerializationError, ValueError):
        # Half a surrogate pair, or a circle.
        try:
            return json.dumps(value, default=_plain).encode("ascii")
        except (TypeError, ValueError, RecursionError):
            return json.dumps({"unwritable": repr(value)[:1000]}).encode("ascii")


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else str(value)
