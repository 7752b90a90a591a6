"""A short name of what a sweep measures, so that only the same sweep goes on where another stopped."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import yaml  # type: ignore[import-untyped]

# What does not change what is measured does not change the study's name.
_ASIDE = (
    "n_trials",
    "parallel",
    "time_budget_s",
    "storage",
    "study_name",
    "finalists",
    "final_rounds",
    "confidence",
    "smallest_gain",
    "lost_after_s",
    "enabled",
)


def fingerprint(file: Path | None, parts: dict[str, Any]) -> str:
    """A short name: of the config without its secrets, as it is written, and of what else decides the trials.

    Args:
        file: the user's config file, if there is one.
        parts: the search space, the seed and the like.
    """
    written: Any = {}
    if file is not None:
        written = _written(file)
        optimizer = written.get("optimizer", {})
        for name in ("output_path", "target"):
            optimizer.pop(name, None)
        for name in _ASIDE:
            (optimizer.get("numeric") or {}).pop(name, None)
        for name in ("output", "output_dir"):
            written.get("eval", {}).get("general", {}).pop(name, None)
    return hashlib.sha256(json.dumps({"written": written, **parts}, sort_keys=True, default=str).encode()).hexdigest()[
        :12
    ]


def _written(file: Path) -> dict[str, Any]:
    """A config file as it is written, variables unreplaced, with the files that it is based on."""
    data = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    base = data.get("base")
    if isinstance(base, str) and (found := file.parent / base).exists():
        data["base"] = _written(found)
    return cast(dict[str, Any], data)
