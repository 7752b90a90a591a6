"""Release notes, and the version of what is built."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]

CHANGELOG = """# Changelog

## [Unreleased]

- To come.

## [1.1.0] - 2026-11-02

### Added

- Something.

## [1.0.0]

- Without a date.

## [0.9.0] - 2026-01-01

[1.1.0]: https://example.com/1.1.0
"""


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_notes", ROOT / "scripts" / "release_notes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestNotes:
    @pytest.mark.parametrize("version", ["1.1.0", "v1.1.0"])
    def test_they_are_the_section_of_the_version(self, release: ModuleType, version: str) -> None:
        assert release.notes(CHANGELOG, version) == "### Added\n\n- Something.\n"

    def test_what_is_to_come_needs_no_date(self, release: ModuleType) -> None:
        assert release.notes(CHANGELOG, "Unreleased") == "- To come.\n"

    @pytest.mark.parametrize(
        ("version", "text"),
        [
            ("1.0.0", "no date for 1.0.0"),
            ("0.9.0", "nothing about 0.9.0"),
            ("2.0.0", r"no section .* there are: Unreleased, 1\.1\.0, 1\.0\.0, 0\.9\.0"),
        ],
    )
    def test_a_version_that_is_not_ready_is_refused(self, release: ModuleType, version: str, text: str) -> None:
        with pytest.raises(ValueError, match=text):
            release.notes(CHANGELOG, version)

    def test_the_changelog_of_this_repository_is_read(self) -> None:
        script = ROOT / "scripts" / "release_notes.py"
        done = subprocess.run([sys.executable, script, "Unreleased"], capture_output=True, text=True, check=True)
        assert "### Added" in done.stdout and "## [" not in done.stdout
        missing = subprocess.run([sys.executable, script, "99.0.0"], capture_output=True, text=True)
        assert missing.returncode == 1 and "99.0.0" in missing.stderr


class TestVersion:
    """Which version a build has, as hatch asks for it: in a repository of its own with this project's settings."""

    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        given = tomllib.loads((ROOT / "pyproject.toml").read_text())
        version = given["tool"]["hatch"]["version"]
        (tmp_path / "pyproject.toml").write_text(
            f'[build-system]\nrequires = {given["build-system"]["requires"]}\nbuild-backend = "hatchling.build"\n'
            f'[project]\nname = "a-project"\ndynamic = ["version"]\n'
            f'[tool.hatch.version]\nsource = "vcs"\nfallback-version = "{version["fallback-version"]}"\n'
            f"raw-options = {{ git_describe_command = {json.dumps(version['raw-options']['git_describe_command'])} }}\n"
            '[tool.hatch.build]\ninclude = ["*.py"]\n'
        )
        (tmp_path / "a_project.py").write_text("")
        return tmp_path

    def version(self, project: Path) -> str:
        command = [sys.executable, "-m", "hatchling", "version"]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def git(self, project: Path, *arguments: str) -> None:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=project, check=True, capture_output=True)

    def commit(self, project: Path) -> None:
        self.git(project, "add", "-A")
        self.git(project, "commit", "-m", "A commit", "--allow-empty")

    def test_a_tag_is_the_version(self, project: Path) -> None:
        self.git(project, "init")
        self.commit(project)
        self.git(project, "tag", "v1.2.3")
        assert self.version(project) == "1.2.3"
        self.commit(project)
        assert self.version(project).startswith("1.2.4.dev1+g")

    def test_a_tag_of_another_form_is_none(self, project: Path) -> None:
        self.git(project, "init")
        self.commit(project)
        self.git(project, "tag", "v1.2.3")
        self.git(project, "tag", "bench-2026-11-01")
        assert self.version(project) == "1.2.3"

    def test_a_clone_without_tags_has_a_version(self, project: Path) -> None:
        self.git(project, "init")
        self.commit(project)
        assert self.version(project).startswith("0.1.0.dev1+g")

    def test_a_folder_without_git_has_the_fallback(self, project: Path) -> None:
        assert self.version(project) == "0.1.0.dev0"

    def test_an_sdist_keeps_its_version(self, project: Path) -> None:
        (project / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: a-project\nVersion: 3.2.1\n")
        assert self.version(project) == "3.2.1"
