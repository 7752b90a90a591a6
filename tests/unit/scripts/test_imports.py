"""The picture of imports: what it shows, and what makes it fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "imports.py"

SETTINGS = """
[tool.importlinter]
root_package = "house"

[[tool.importlinter.contracts]]
type = "layers"
layers = ["roof", "left | right", "cellar"]
"""
SOUND = {
    "__init__": "",
    "roof/__init__": "",
    "roof/tiles": "from house.left import window\nfrom house.roof.beams import oak\n",
    "roof/beams": "def lazy():\n    import house.cellar.wine\n\noak = 1\n",
    "left": "from house.cellar.wine import red\nwindow = red\n",
    "right": "",
    "cellar/__init__": "",
    "cellar/wine": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.roof import tiles\nred = 1\n",
}


def picture(root: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    """What the script says of the house with some files changed; `__` stands for `/`."""
    (root / "pyproject.toml").write_text(SETTINGS, encoding="utf-8")
    for name, text in {**SOUND, **{name.replace("__", "/"): text for name, text in changed.items()}}.items():
        file = root / "src" / "house" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(root)], capture_output=True, text=True, timeout=120, check=False
    )


def test_shows_rooms_from_top_to_bottom_and_their_modules_in_order(tmp_path: Path) -> None:
    done = picture(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "house -> nothing",
        "roof -> left, cellar",
        "      tiles > beams",
        "      beams",
        "left -> cellar",
        "right -> nothing",
        "cellar -> nothing",
        "      wine",
        "Imports: 8 modules, no circle, no arrow upwards.",
    ]


@pytest.mark.parametrize(
    ("name", "text", "marked", "finding"),
    [
        ("cellar__wine", "import house.left\n", "wine", "house.cellar.wine imports house.left, which is not below it"),
        (
            "cellar__wine",
            "def f():\n    from house.roof import tiles\n",
            "wine",
            "house.cellar.wine imports house.roof",
        ),
        ("cellar__wine", "name = 'house.roof.tiles'\n", "wine", "house.cellar.wine imports house.roof.tiles"),
        ("cellar__wine", "name = 'house.left:window'\n", "wine", "house.cellar.wine imports house.left"),
        ("right", "import house.left\n", "itself", "house.right imports house.left, which is not below it"),
        ("right", "import house\n", "itself", "house.right imports house, which is not below it"),
        ("roof__beams", "from house.roof import tiles\noak = 1\n", "tiles > beams", "circle: house.roof.tiles > house"),
        ("attic", "", "itself", "house.attic: the room attic has no place"),
    ],
)
def test_fails_on_what_must_not_be(tmp_path: Path, name: str, text: str, marked: str, finding: str) -> None:
    done = picture(tmp_path, **{name: text})
    assert done.returncode == 1
    assert f"!! {finding}" in done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("!!")] == [f"!!    {marked}"]


def test_shows_every_circle(tmp_path: Path) -> None:
    done = picture(
        tmp_path,
        roof__beams="import house.roof.tiles\nimport house.roof.nails\noak = 1\n",
        roof__nails="import house.roof.beams\n",
    )
    circles = [line for line in done.stderr.splitlines() if "circle" in line]
    assert len(circles) == 2
    assert any("nails" in line for line in circles) and any("tiles" in line for line in circles)
