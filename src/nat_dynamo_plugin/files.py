"""Files that only their owner can read: what a run writes may hold what its users said."""

from __future__ import annotations

import os
from pathlib import Path

from nat_dynamo_plugin.secrets import redacted, with_variables

OWNER_ONLY = 0o600
WRITTEN_BY_NAT = (
    *("config_original.yml", "config_effective.yml", "config_metadata.json", "*_output.json", "*_output_atif.json"),
    *("all_requests_profiler_traces.json", "standardized_data_all.csv", "inference_optimization.json"),
    *("workflow_profiling_report.txt", "workflow_profiling_metrics.json"),
)
"""What `nat eval` leaves in its output folder. Nothing else there is ours to change."""


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


def clean_run(folder: Path) -> None:
    """Make the files that `nat eval` has written to a folder their owner's, and take out secrets that are known.

    In a config, which NAT copies as it is, a secret in clear becomes a variable. What a link leads to stays as it is.

    Raises:
        OSError: one can not be written.
    """
    for pattern in WRITTEN_BY_NAT:
        for file in folder.glob(pattern):
            if file.is_symlink() or not file.is_file():
                continue
            make_private(file)
            text = file.read_text("utf-8", errors="surrogateescape")
            clean = with_variables(text) if file.suffix == ".yml" else redacted(text)
            if clean != text:
                file.write_text(clean, "utf-8", errors="surrogateescape")


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
