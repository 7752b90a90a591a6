"""The files in the output folder of a `nat eval`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

WORKFLOW_OUTPUT = "workflow_output.json"
SUFFIX = "_output.json"
"""How the names of the evaluators' files end."""


class ReportError(Exception):
    """The directory holds no readable, finished evaluation; the message says what is missing."""


def job_directory(directory: Path) -> Path:
    """The directory itself, or its only job directory (`append_job_id_to_output_dir`)."""
    if any(directory.glob("*" + SUFFIX)):
        return directory
    jobs = sorted(path for path in directory.glob("jobs/*") if any(path.glob("*" + SUFFIX)))
    if len(jobs) > 1:
        newest = max(jobs, key=lambda path: path.stat().st_mtime)
        raise ReportError(f"{directory} holds {len(jobs)} runs under jobs/; name one of them (the newest is {newest})")
    return jobs[0] if jobs else directory


def load_json(path: Path) -> Any:
    """A file's JSON.

    Raises:
        ReportError: it can not be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} can not be read: {error}; was the evaluation interrupted?") from error


def load_config(path: Path) -> Any:
    """The effective configuration, or nothing: the report only takes hints from it."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def mapping(holder: Any, *keys: str) -> Mapping[str, Any]:
    """What stands in nested mappings under these keys; an empty one if there is none."""
    for key in keys:
        holder = holder.get(key) if isinstance(holder, Mapping) else None
    return holder if isinstance(holder, Mapping) else {}
