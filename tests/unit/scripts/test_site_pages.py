"""The docs site: it builds without a warning, its links work, and it fetches nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "scripts" / "site_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "there", "here"),
    [
        ("index.md", "[a](docs/keys.md#x)", "[a](keys.md#x)"),
        ("index.md", "[a](eval/README.md)", "[a](benchmark.md)"),
        ("index.md", "![a](docs/images/contention.png)", "![a](images/contention.png)"),
        ("index.md", "[a](#limits) [b](https://example.com/docs/x.md)", None),
        ("keys.md", "[a](../README.md#limits)", "[a](index.md#limits)"),
        ("keys.md", "[a](evaluate.md)", "[a](evaluate.md)"),
        ("keys.md", "[`a`](../src/nat_dynamo_plugin/secrets.py)", "`a`"),
        ("keys.md", "[a](gone.md)", "[a](gone.md)"),
        ("keys.md", "[a](../src/gone.py)", "[a](../src/gone.py)"),
        ("benchmark.md", "[a](../docs/keys.md)", "[a](keys.md)"),
        ("keys.md", "```sh\n[a](../README.md)\n```", None),
    ],
)
def test_links_work_on_the_site(pages: ModuleType, page: str, there: str, here: str | None) -> None:
    assert pages.links_for_the_site(there, page) == (there if here is None else here)


def test_pages_come_in_the_order_of_the_readme(pages: ModuleType) -> None:
    given = ["changelog.md", "zebra.md", "keys.md", "index.md", "extend.md", "contributing.md"]
    readme = (ROOT / "README.md").read_text()
    named = sorted(("keys.md", "extend.md"), key=readme.index)
    assert pages.order(given) == ["index.md", *named, "zebra.md", "changelog.md", "contributing.md"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    docs = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert docs | {"index", "changelog", "contributing", "benchmark", "404"} == {p.stem for p in site.glob("*.html")}


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """Links that a reader may follow are no matter; scripts, styles, pictures and fonts are."""
    fetched = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
    for path in site.glob("*.html"):
        assert fetched.findall(path.read_text()) == [], path.name
    for path in site.rglob("*.css"):
        assert re.findall(r"""(?:url\(|@import\s*)["']?(?:https?:)?//[^"')]+""", path.read_text()) == [], path.name
