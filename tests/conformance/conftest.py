"""`nat dynamo` as a user runs it, with a state of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "nat_dynamo_plugin.cli", *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120)

    yield command
    command("down")
