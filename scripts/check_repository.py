"""Check what no linter checks: files fit every machine, nothing is too long, and the pinned sets agree.

    python scripts/check_repository.py

- No file names a package index or an option that points to one: where packages come from is the user's setting.
- No file names a path of the machine it was written on.
- No file in `src` has over 350 lines, and no function in it over 50. A function's lines are those from its `def` to its
  end, inner functions included, without its docstring: what is explained well may be long, what is done may not.
- `requirements/demo.txt` is part of `requirements/dev.txt`, pin for pin, and both keep out what must not come in.

Prints one line a finding; ends with 1 if there is one.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

THIS = Path(__file__).resolve()
ROOT = THIS.parent.parent

# A host of the public index or a page of an index ("https://host/simple").
_INDEX_HOST = re.compile(r"\bpy(?:pi|thonhosted)\.(?:org|io|python\.org)\b|https?://[^\s\"'`]+/simple\b", re.IGNORECASE)
_INDEX_OPTION = re.compile(
    r"(?:^-[if]|(?<![\w-])--(?:extra-index-url|index-url|find-links|trusted-host))[\s=]+\S+", re.MULTILINE
)
_MACHINE_PATH = re.compile(r"(?<![\w.$~})])/(?:home|Users|root|work|tmp/\w+)/[\w.-]+")

# Not to be pinned: aisimulate fetches a wheel from a vendor's index, the others are gigabytes that nothing here needs.
_KEPT_OUT = re.compile(r"aisimulate|torch|triton|nvidia-(?!nat\b).*")
_PIN = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[^\s;]+)(?:\s*;\s*(?P<marker>.+))?")

MOST_FILE_LINES = 350
MOST_FUNCTION_LINES = 50


def _tracked_files(root: Path) -> list[Path]:
    """The files under version control; without git (a source archive), all that a build leaves alone."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return [
            path
            for path in root.rglob("*")
            if path.is_file()
            and not any(p.startswith(".") or p == "results" for p in path.relative_to(root).parts[:-1])
        ]
    return [path for name in listed.stdout.split("\0") if name and (path := root / name).is_file()]


def findings_in_files(root: Path) -> Iterator[str]:
    """What a file under `root` names that it must not."""
    rules = (
        (_INDEX_HOST, "names a package index"),
        (_INDEX_OPTION, "points pip to a package index"),
        (_MACHINE_PATH, "names a path of one machine"),
    )
    for path in _tracked_files(root):
        if path == THIS:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for pattern, what in rules:
            for match in pattern.finditer(text):
                line = text.count("\n", 0, match.start(0)) + 1
                yield f"{path.relative_to(root)}:{line}: {what}: {match.group(0).strip()}"


def findings_in_sizes(source: Path) -> Iterator[str]:
    """Files and functions under the directory `source` that are too long."""
    for path in sorted(source.rglob("*.py")):
        where = path.relative_to(source.parent)
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > MOST_FILE_LINES:
            yield f"{where}: {lines} lines, more than {MOST_FILE_LINES}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
                (lines := _lines(node)) > MOST_FUNCTION_LINES
            ):
                yield f"{where}:{node.lineno}: {node.name} has {lines} lines, more than {MOST_FUNCTION_LINES}"


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """A function's lines without its decorators and its docstring."""
    said = 0 if ast.get_docstring(function, clean=False) is None else _length(function.body[0])
    return _length(function) - said


def _length(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _pins(path: Path) -> Iterator[tuple[str, str]]:
    """The (name, rest of the line) of each pin; what is not a pin has an empty name."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            match = _PIN.fullmatch(line)
            yield (match["name"], line) if match else ("", line)


def findings_in_pins(requirements: Path) -> Iterator[str]:
    """What is wrong with the pinned sets in the directory `requirements`."""
    development = {line for _, line in _pins(requirements / "dev.txt")}
    for name in ("demo.txt", "dev.txt"):
        for package, line in _pins(requirements / name):
            if not package:
                yield f"requirements/{name}: not a pin: {line}"
            elif _KEPT_OUT.fullmatch(package):
                yield f"requirements/{name}: must not be installed: {line}"
            elif name == "demo.txt":
                version = line.partition(";")[0].strip()
                if not any(known.partition(";")[0].strip() == version for known in development):
                    yield f"requirements/{name}: {version} is not in dev.txt; run `make lock`"


def main() -> int:
    findings = [
        *findings_in_files(ROOT),
        *findings_in_sizes(ROOT / "src"),
        *findings_in_pins(ROOT / "requirements"),
    ]
    for finding in findings:
        print(finding, file=sys.stderr)
    if not findings:
        print("Repository: no index, no machine's path, sizes within bounds, pins agree.")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
