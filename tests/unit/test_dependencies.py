"""What a user installs: everything that a call needs, and nothing that nobody imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "nat_dynamo_plugin"
ALWAYS = (
    "question",
    "plan",
    "dialects",
    "http",
    "layers",
    "admission",
    "learning",
    "config",
    "service.py",
    "transport.py",
)
"""Where a call goes through, whatever is configured."""
COMES_WITH = {
    "multidict": "aiohttp",
    "nat": "nvidia-nat-core",
    "pydantic_core": "pydantic",
    "yarl": "aiohttp",
}
BY_CHOICE = {
    "brotli": "used where it is installed",
    "httpx2": "comes with OpenAI's library from its version 3 on",
    "openai": "comes with every framework that needs it",
    "zstandard": "used where it is installed",
}


def imported(path: Path) -> Iterator[str]:
    """Packages of others that a module imports, also those that it imports when needed."""
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
        for module in modules:
            package = module.partition(".")[0]
            if package not in sys.stdlib_module_names and package != "nat_dynamo_plugin":
                yield package


def needed() -> set[str]:
    files = [file for name in ALWAYS for file in [SOURCE / name, *(SOURCE / name).rglob("*.py")] if file.is_file()]
    assert len(files) > 40
    return {package for file in files for package in imported(file)}


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {re.split(r"[<>=\[]", requirement)[0] for requirement in project["dependencies"]}


def test_what_a_call_needs_is_what_is_installed() -> None:
    assert {COMES_WITH.get(package, package) for package in needed() - BY_CHOICE.keys()} == declared()
