"""Where a key comes from: `env:NAME`, `file:/path`, or a key in clear. Read again when it may have changed."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from time import monotonic
from typing import Protocol

from nat_dynamo_plugin.nearest import did_you_mean
from nat_dynamo_plugin.secrets import known

LOOK_S = 0.25
"""A key's file is looked at this often (s), at most; a look takes some microseconds."""
MAX_BYTES = 16_384
"""A longer file holds no key."""

_KEY = re.compile(r"[\x21-\x7e]+")
_NO_KEY = "holds no key that can travel in a header (letters, digits and signs of ASCII on one line)"


class Source(Protocol):
    """One place that a key comes from.

    Attributes:
        name: for messages; tells nothing of the key.
    """

    name: str

    def value(self) -> str:
        """The key as far as is known; costs next to nothing."""

    def reread(self) -> str:
        """The key as it is there now, or the last one if there is none now."""


class ClearKey:
    """A key that is given as it is, and never changes."""

    def __init__(self, key: str) -> None:
        self.name = "the key in the config"
        self._key = key
        known.remember(key)

    def value(self) -> str:
        """The key."""
        return self._key

    def reread(self) -> str:
        """The key."""
        return self._key


class VariableKey:
    """A key in an environment variable, read again when the server refuses it.

    Raises:
        ValueError: it is not set, or holds none.
    """

    def __init__(self, variable: str) -> None:
        self.name = f"env:{variable}"
        self._variable = variable
        text = os.environ.get(variable, "").strip()
        if not text:
            how = "is not set" if variable not in os.environ else "is empty"
            raise ValueError(f"{self.name}: the environment variable {how}{did_you_mean(variable, os.environ)}")
        if not _KEY.fullmatch(text):
            raise ValueError(f"{self.name}: the environment variable {_NO_KEY}")
        self._key = text
        known.remember(text)

    def value(self) -> str:
        """The key as it was when it was last read."""
        return self._key

    def reread(self) -> str:
        """Look at the environment."""
        text = os.environ.get(self._variable, "").strip()
        if text != self._key and _KEY.fullmatch(text):
            known.remember(text)
            known.retire(self._key)
            self._key = text
        return self._key


class FileKey:
    """A key in a file, read again when the file is another: a rotation is seen `LOOK_S` later at most.

    What the path leads to is looked at, links followed: Kubernetes rotates a mounted secret by changing a link. A file
    that is gone, empty or broken for a while leaves the last key as it is.

    Args:
        path: of the file.
        clock: seconds, never going back.

    Raises:
        ValueError: there is no such file, or no key in it.
    """

    def __init__(self, path: str, clock: Callable[[], float] = monotonic) -> None:
        self.name = f"file:{path}"
        self._path = Path(path).expanduser()
        self._clock = clock
        self._lock = threading.Lock()
        self._signature: tuple[int, int, int] | None = None
        self._next_look = clock() + LOOK_S
        try:
            self._signature, self._key = self._read()
        except FileNotFoundError:
            raise ValueError(f"{self.name}: there is no such file{self._nearest()}") from None
        except OSError as error:
            raise ValueError(f"{self.name}: it can not be read: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        known.remember(self._key)

    def value(self) -> str:
        """The key, read again if the file has changed."""
        if self._clock() >= self._next_look:
            self._look(always=False)
        return self._key

    def reread(self) -> str:
        """The key as it is in the file now."""
        self._look(always=True)
        return self._key

    def _look(self, *, always: bool) -> None:
        with self._lock:
            self._next_look = self._clock() + LOOK_S
            try:
                if not always and _signature(self._path.stat()) == self._signature:
                    return
                signature, key = self._read()
            except (OSError, ValueError):
                return  # it is being replaced, or will be; a key that is refused says so itself
            self._signature = signature
            if key != self._key:
                known.remember(key)
                known.retire(self._key)
                self._key = key

    def _read(self) -> tuple[tuple[int, int, int], str]:
        # A pipe would block, and a device might never end.
        handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise ValueError("it is no regular file")
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig", "replace").strip()
        if not text:
            raise ValueError("it is empty")
        if len(content) > MAX_BYTES or not _KEY.fullmatch(text):
            raise ValueError(f"it {_NO_KEY}")
        return _signature(state), text

    def _nearest(self) -> str:
        try:
            names = [entry.name for entry in self._path.parent.iterdir()]
        except OSError:
            return f", and no folder {str(self._path.parent)!r} that can be read"
        near = get_close_matches(self._path.name, names, n=1)
        return f"; did you mean file:{self._path.parent / near[0]}?" if near else ""


def _signature(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_mtime_ns, state.st_ino, state.st_size


def source_of(text: str) -> Source:
    """The source that a config names.

    Args:
        text: `env:NAME`, `file:/path`, or a key.

    Raises:
        ValueError: there is no key there. The message names the source.
    """
    if text.startswith("env:"):
        return VariableKey(text[4:])
    if text.startswith("file:"):
        return FileKey(text[5:])
    return ClearKey(text)
