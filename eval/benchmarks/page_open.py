"""How long a page takes to open in headless Chromium, and what it says on the console.

Each repetition is a new browser, which loads the page, paints it and ends; the same for an empty page, in turns. The
difference of the two is the page's own.

    python eval/benchmarks/page_open.py PAGE [PAGE ...]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPETITIONS = 9
BROWSER = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    *("--enable-logging=stderr", "--window-size=1100,1400"),
)


def opened(address: str, folder: str) -> tuple[float, list[str]]:
    """Seconds that the browser took, and its console's lines."""
    picture = str(Path(folder) / "page.png")
    begin = time.perf_counter()
    ran = subprocess.run(
        [*BROWSER, f"--user-data-dir={folder}", f"--screenshot={picture}", address],
        capture_output=True, text=True, errors="replace", check=True,
    )  # fmt: skip
    return time.perf_counter() - begin, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


def main(pages: list[str]) -> int:
    """Open each page in turn with an empty one; print medians and ranges in s. 1 if a console said something."""
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        opened("about:blank", folder)
        for page in pages:
            times: dict[str, list[float]] = {"about:blank": [], page: []}
            for _ in range(REPETITIONS):
                for address, taken in times.items():
                    seconds, lines = opened(
                        address if address == "about:blank" else Path(page).resolve().as_uri(), folder
                    )
                    taken.append(seconds)
                    said += lines
            size = Path(page).stat().st_size
            print(f"{page}: {size / 1000:,.0f} kB, {len(said)} console messages")
            for address, taken in times.items():
                median = statistics.median(taken)
                print(f"  {address:40s} median {median:.2f} s, {min(taken):.2f} to {max(taken):.2f} s")
    for line in said:
        print(line)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
