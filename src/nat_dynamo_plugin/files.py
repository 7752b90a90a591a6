"""Files that only their owner can read: what a run writes may hold what its users said."""

from __future__ import annotations

import os
from pathlib import Path

OWNER_ONLY = 0o600


def write_text(file: Path, text: str, *, newline: str | None = None) -> None:
    """Write a text as UTF-8 to a file for its owner only, also if it was there already.

    Raises:
        OSError: it can not be written.
    """
    with os.fdopen(_opened(file, os.O_WRONLY | os.O_TRUNC), "w", encoding="utf-8", newline=newline) as out:
        out.write(text)


def make_private(file: Path) -> None:
    """Make a file, if there is none, that only its owner can read, for a library that writes it; or make it so.

    Raises:
        OSError: it can not be made.
    """
    os.close(_opened(file, os.O_WRONLY))


def _opened(file: Path, flags: int) -> int:
    handle = os.open(file, flags | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY)
    try:
        os.fchmod(handle, OWNER_ONLY)
    except PermissionError:
        pass  # another user's file, for whom it is to say who reads it
    except BaseException:
        os.close(handle)
        raise
    return handle
