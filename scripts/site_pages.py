"""What mkdocs does not do by itself: README and its like as pages of the site, and links that work in both places.

The files of the repository link each other as they lie there. On the site README is the first page, `docs/` the root,
and a link to a file that is no page (a source, a config) becomes its text. The order of the pages is that in which
README names them; what it does not name comes after.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "eval/README.md": "benchmark.md",
}
"""Files outside `docs/` that are pages, by their place in the repository."""
LAST = ("benchmark.md", "changelog.md", "contributing.md")

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_FENCE = re.compile(r"^(```.*?^```[ \t]*$)", re.MULTILINE | re.DOTALL)


def page_of(place: str) -> str | None:
    """The page or picture of the site that a file of the repository is; `None` if it is none."""
    if place in OUTSIDE:
        return OUTSIDE[place]
    return place.removeprefix("docs/") if place.startswith("docs/") else None


def place_of(page: str) -> str:
    """Where in the repository a page comes from."""
    return next((place for place, name in OUTSIDE.items() if name == page), f"docs/{page}")


def links_for_the_site(text: str, page: str) -> str:
    """Markdown of a page, its links as the site needs them."""
    folder = posixpath.dirname(place_of(page))

    def linked(match: re.Match[str]) -> str:
        if "://" in match["target"] or match["target"].startswith("mailto:"):
            return match[0]
        place = posixpath.normpath(posixpath.join(folder, match["target"]))
        target = page_of(place)
        if target is None:
            # A file that is not there stays a link, for mkdocs to complain about.
            return match["text"] if (ROOT / place).exists() else match[0]
        target = posixpath.relpath(target, posixpath.dirname(page) or ".")
        return f"{match['image']}[{match['text']}]({target}{match['anchor'] or ''})"

    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(linked, part) for part in parts)


def order(pages: list[str]) -> list[str]:
    """Pages in the order in which a reader wants them."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = list(dict.fromkeys(re.findall(r"\(docs/([\w-]+\.md)", readme)))
    middle = [page for page in named if page in pages]
    rest = sorted(set(pages) - {"index.md", *middle, *LAST})
    return ["index.md", *middle, *rest, *(page for page in LAST if page in pages)]


def title_of(page: str) -> str:
    """The title of a page, from its first heading."""
    if page == "index.md":
        return "Home"
    text = (ROOT / place_of(page)).read_text(encoding="utf-8")
    match = re.search(r"^# (.+)$", text, re.MULTILINE)
    return match[1].replace("`", "") if match else page


# --- mkdocs calls these by their names.


def on_config(config: MkDocsConfig, **_: Any) -> MkDocsConfig:
    pages = [*OUTSIDE.values(), *(path.name for path in sorted((ROOT / "docs").glob("*.md")))]
    config.nav = [{title_of(page): page} for page in order(pages)]
    return config


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    for place, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / place).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    return links_for_the_site(markdown, page.file.src_uri)
