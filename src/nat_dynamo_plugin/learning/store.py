"""What was learned, in a file."""

from __future__ import annotations

import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nat_dynamo_plugin.learning.means import Group

FORMAT = "nat-dynamo-learned"
VERSION = 1

Key = tuple[str, str]
"""Path and kind."""


def write(file: Path, groups: Iterable[tuple[Key, dict[str, Any]]]) -> None:
    """Write groups as JSON, in their order. The file appears whole or not at all.

    Raises:
        OSError: it can not be written.
    """
    rows = [{"name": list(key), **group} for key, group in groups]
    text = json.dumps({"format": FORMAT, "version": VERSION, "groups": rows}, separators=(",", ":"))
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(file: Path, most: int) -> OrderedDict[Key, Group]:
    """The last `most` groups of a file, in order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what `write` writes, or of a newer version.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        if data["version"] != VERSION:
            raise ValueError(f"version {data['version']!r}; this release reads version {VERSION}")
        return OrderedDict((_key(*row["name"]), Group.from_dict(row)) for row in data["groups"][-most:])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(file)!r} holds no learned numbers: {error}") from error


def _key(path: str, kind: str) -> Key:
    return str(path), str(kind)
