"""Install a wheel as a user does, and try its doors, on each Python that is here.

    python scripts/try_wheel.py dist/NAME.whl [PYTHON ...]

For each Python (`python3.11`, `python3.12`, `python3.13`, those of them that run): a fresh venv in a temporary folder,
`pip install FILE` and nothing besides, then every entry point of the wheel is loaded and `nat dynamo` is asked, in an
empty folder, with nothing of this repository on the path. Prints a line a Python; ends with 1 if one fails or none is
there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PYTHONS = ("python3.11", "python3.12", "python3.13")
PACKAGE = "nat-dynamo-plugin"

# Runs in the new environment. An entry point that can not be loaded raises.
PROBE = """
import json, sys
from importlib.metadata import distribution
found = distribution("nat-dynamo-plugin")
for one in found.entry_points:
    one.load()
from nat.cli.type_registry import GlobalTypeRegistry
print(json.dumps({
    "version": found.version,
    "entry_points": sorted(f"{one.group}:{one.name}" for one in found.entry_points),
    "llm": [one.config_type.__module__ for one in GlobalTypeRegistry.get().get_registered_llm_providers()
            if one.config_type.static_type() == "dynamo"],
    "typed": any(str(path).endswith("py.typed") for path in found.files),
}))
"""


class TryError(Exception):
    """What a wheel did not do."""


def run(command: Sequence[str], folder: Path) -> str:
    """What a command prints; nothing of this process's Python reaches it. Raises `TryError`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise TryError(f"{' '.join(command[:4])} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def version_of(python: str, folder: Path) -> str | None:
    """The version of a Python; `None` if there is none that runs."""
    try:
        return run([python, "-c", "import platform; print(platform.python_version())"], folder).strip()
    except (OSError, TryError):
        return None


def try_wheel(wheel: Path, python: str, folder: Path) -> str:
    """Install and try it in a new environment in `folder`; what was seen, in a line. Raises `TryError`."""
    run([python, "-m", "venv", str(folder / "venv")], folder)
    bin_folder = folder / "venv" / "bin"
    run([str(bin_folder / "python"), "-m", "pip", "install", "--quiet", str(wheel)], folder)
    empty = folder / "empty"
    empty.mkdir()
    seen = json.loads(run([str(bin_folder / "python"), "-W", "ignore", "-c", PROBE], empty).splitlines()[-1])
    if seen["version"].replace("-", "_") not in wheel.name:
        raise TryError(f"{seen['version']} was installed from {wheel.name}")
    if seen["llm"] != ["nat_dynamo_plugin.config.model"]:
        raise TryError(f"`_type: dynamo` comes from {seen['llm']}")
    if not seen["typed"]:
        raise TryError("py.typed is missing")
    told = run([str(bin_folder / "nat"), "dynamo", "--help"], empty)
    for command in ("up", "doctor"):
        if command not in told:
            raise TryError(f"`nat dynamo --help` does not name {command}")
        run([str(bin_folder / "nat"), "dynamo", command, "--help"], empty)
    return f"{seen['version']}, {', '.join(seen['entry_points'])}, nat dynamo --help"


def main() -> int:
    wheel, pythons = Path(sys.argv[1]).resolve(), sys.argv[2:] or PYTHONS
    tried = failed = 0
    for python in pythons:
        with tempfile.TemporaryDirectory(prefix="nat-dynamo-wheel-") as name:
            folder = Path(name)
            version = version_of(python, folder)
            if version is None:
                print(f"{python}: not here")
                continue
            tried += 1
            try:
                print(f"Python {version}: {try_wheel(wheel, python, folder)}", flush=True)
            except TryError as error:
                failed += 1
                print(f"Python {version}: {error}", file=sys.stderr, flush=True)
    if not tried:
        print("There is no Python to try it on.", file=sys.stderr)
    return 1 if failed or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
