"""Print what CHANGELOG.md says of a version, as the notes of its release.

    python scripts/release_notes.py 0.1.0

A version without a section of its own, or with an empty one, is an error: the changelog is written before the tag.
`Unreleased` gives what is to come.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"

_HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?[ \t]*$", re.MULTILINE)


def notes(changelog: str, version: str) -> str:
    """The text of a version's section, without its heading.

    Raises:
        ValueError: if there is none, if it is empty, or if a version that is no `Unreleased` has no date.
    """
    headings = list(_HEADING.finditer(changelog))
    wanted = version.removeprefix("v")
    for heading, after in zip(headings, [*headings[1:], None], strict=True):
        if heading["version"].lower() != wanted.lower():
            continue
        text = changelog[heading.end() : None if after is None else after.start()]
        # The list of links at the end belongs to all sections.
        text = re.sub(r"^\[[^\]]+\]: \S+\n?", "", text, flags=re.MULTILINE).strip()
        if not text:
            raise ValueError(f"CHANGELOG.md has nothing about {wanted}")
        if heading["date"] is None and wanted.lower() != "unreleased":
            raise ValueError(f"CHANGELOG.md has no date for {wanted}: `## [{wanted}] - YYYY-MM-DD`")
        return text + "\n"
    known = ", ".join(heading["version"] for heading in headings) or "none"
    raise ValueError(f"CHANGELOG.md has no section `## [{wanted}] - YYYY-MM-DD`; there are: {known}")


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(notes(CHANGELOG.read_text(encoding="utf-8"), sys.argv[1]), end="")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
