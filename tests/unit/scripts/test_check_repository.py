"""The check of the repository itself: what it must find, and what it must leave alone."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "check_repository.py"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_repository", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Put together here, so that this file itself passes the check.
@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("see https://" + "py" + "pi.org/project/x", "a package index"),
        ("files.py" + "thonhosted.org", "a package index"),
        ("https://mirror.example/root/" + "simple", "a package index"),
        ("pip install --index-" + "url=file.txt x", "points pip"),
        ("--find-" + "links wheels", "points pip"),
        ("cd /ho" + "me/someone/checkout", "path of one machine"),
        ("log = '/wo" + "rk/main/x.log'", "path of one machine"),
        ("the /home page, a /work item, https://host/" + "work/x", None),
        ("pip install --no-deps -r requirements/dev.txt", None),
    ],
)
def test_finds_what_a_file_must_not_name(check: ModuleType, tmp_path: Path, text: str, what: str | None) -> None:
    (tmp_path / "notes.md").write_text(f"first line\n{text}\n", encoding="utf-8")
    findings = list(check.findings_in_files(tmp_path))
    if what is None:
        assert findings == []
    else:
        assert len(findings) == 1
        assert findings[0].startswith("notes.md:2: ")
        assert what in findings[0]


def test_reads_what_git_tracks_and_not_what_it_ignores(check: ModuleType, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("ignored/\n", encoding="utf-8")
    for folder in ("ignored", "kept"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "f.txt").write_text("/ro" + "ot/x\n", encoding="utf-8")
    assert [finding.split(":")[0] for finding in check.findings_in_files(tmp_path)] == ["kept/f.txt"]


@pytest.mark.parametrize(
    ("demo", "dev", "what"),
    [
        ("a==1\n", "a==1\nb==2 ; python_full_version >= '3.12'\n", None),
        ("a==1\n", "a==2\n", "is not in dev.txt"),
        ("", "a>=1\n", "not a pin"),
        ("", "torch==2.9.0\n", "must not be installed"),
        ("", "nvidia-cublas-cu12==12.1\n", "must not be installed"),
        ("", "nvidia-nat-core==1.9.0\n", None),
    ],
)
def test_pinned_sets_agree(check: ModuleType, tmp_path: Path, demo: str, dev: str, what: str | None) -> None:
    (tmp_path / "demo.txt").write_text("# made by make lock\n" + demo, encoding="utf-8")
    (tmp_path / "dev.txt").write_text("# made by make lock\n" + dev, encoding="utf-8")
    findings = list(check.findings_in_pins(tmp_path))
    assert len(findings) == (what is not None)
    assert what is None or what in findings[0]


def function(lines: int, *, docstring: int = 0, name: str = "f") -> str:
    """A function of a number of lines, its signature counted and its docstring not."""
    said = ['    """A docstring.', *[""] * (docstring - 2), '    """'] if docstring else []
    return "\n".join(["@decorated", f"def {name}(", "):", *said, *["    pass"] * (lines - 2)]) + "\n"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("x = 1\n" * 350, None),
        ("x = 1\n" * 351, "room/m.py: 351 lines, more than 350"),
        (function(50), None),
        (function(51), "room/m.py:2: f has 51 lines, more than 50"),
        (function(50, docstring=20), None),
        (function(51, docstring=20), "f has 51 lines"),
        (function(51).replace("def f", "async def f"), "f has 51 lines"),
        # A method, and a function in a function, which counts for both.
        ("class C:\n" + "".join(f"    {line}\n" for line in function(51).splitlines()), "f has 51 lines"),
        ("def outer():\n" + "".join(f"    {line}\n" for line in function(49).splitlines()), "outer has 51 lines"),
    ],
)
def test_finds_what_is_too_long(check: ModuleType, tmp_path: Path, text: str, what: str | None) -> None:
    (tmp_path / "src" / "room").mkdir(parents=True)
    (tmp_path / "src" / "room" / "m.py").write_text(text, encoding="utf-8")
    findings = list(check.findings_in_sizes(tmp_path / "src"))
    assert len(findings) == (what is not None)
    assert what is None or what in findings[0]
