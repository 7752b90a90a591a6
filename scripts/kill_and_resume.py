"""Kill `nat eval` in mid-run, again and again, resume it, and compare with a run that nobody disturbed.

    python scripts/kill_and_resume.py configs/eval_bfcl_full.yml --kills 5

One run is left alone. The other is killed (SIGKILL) as soon as its journal has so many LLM calls, a number drawn at
random for each kill, and started again with the same command; the last start is left alone too. Both write below a
temporary folder, unless `--keep` names one. Prints where it was killed, both tables, and what was asked twice; ends
with 1 if a question is missing or was answered twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

JOURNAL = "journal.jsonl"


def lines(folder: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a run's journal."""
    path = folder / JOURNAL
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def calls_so_far(folder: Path) -> int:
    """LLM calls in the journal, by the beginnings of its lines: it is read often, and its other lines are long."""
    try:
        with (folder / JOURNAL).open("rb") as file:
            return sum(line.startswith(b'{"call"') for line in file)
    except OSError:
        return 0


def start(config: Path, folder: Path, overrides: list[list[str]]) -> subprocess.Popen[bytes]:
    """The evaluation, as a process group of its own."""
    nat = Path(sys.executable).with_name("nat")
    override = [["eval.general.output.dir", str(folder)], *overrides]
    options = [word for pair in override for word in ("--override", *pair)]
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", str(nat), "eval", "--config_file", str(config), *options],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def kill_at(process: subprocess.Popen[bytes], folder: Path, calls: int) -> bool:
    """Kill the process once the journal has that many calls; whether it was still there."""
    try:
        while process.poll() is None:
            if calls_so_far(folder) >= calls:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                return process.returncode == -signal.SIGKILL
            time.sleep(0.01)
        return False
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for the end of a run. Ends this script with its log if it failed."""
    try:
        process.wait()
    finally:
        if process.poll() is None:
            process.kill()
    if process.returncode:
        sys.exit(f"nat eval failed:\n{folder.with_suffix('.log').read_text(errors='replace')[-3000:]}")


def scores(folder: Path) -> dict[str, Any]:
    """Average score by evaluator."""
    found = {}
    for path in sorted(folder.glob("*_output.json")):
        output = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(output, dict):
            found[path.name.removesuffix("_output.json")] = output["average_score"]
    return found


def main() -> int:
    """Run both and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--override", nargs=2, action="append", default=[], metavar=("PATH", "VALUE"))
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where both runs write and stay")
    arguments = parser.parse_args()
    if arguments.keep is not None:
        return compare(arguments, arguments.keep / "undisturbed", arguments.keep / "killed")
    with tempfile.TemporaryDirectory(prefix="kill-and-resume-") as temporary:
        return compare(arguments, Path(temporary) / "undisturbed", Path(temporary) / "killed")


def compare(arguments: argparse.Namespace, undisturbed: Path, killed: Path) -> int:
    """Run both, print the comparison; 1 if a question is missing or was answered twice."""
    finish(start(arguments.config, undisturbed, arguments.override), undisturbed)
    total = calls_so_far(undisturbed)
    chance = random.Random(arguments.seed)
    for moment in sorted(chance.sample(range(1, total), arguments.kills)):
        if not kill_at(start(arguments.config, killed, arguments.override), killed, moment):
            sys.exit(f"nat eval ended before call {moment}: {killed.with_suffix('.log')}")
        rows = list(lines(killed))
        answered = sum("question" in row for row in rows)
        print(f"killed at call {calls_so_far(killed)} of {total} or so; {answered} questions answered", flush=True)
    finish(start(arguments.config, killed, arguments.override), killed)

    print(f"\n{'':24}{'undisturbed':>14}{'killed':>14}")
    theirs, ours = scores(undisturbed), scores(killed)
    for name in theirs:
        print(f"{name:24}{theirs[name]!s:>14.10}{ours.get(name)!s:>14.10}")
    times = Counter(row["question"] for row in lines(killed) if "question" in row and row.get("failure") is None)
    expected = {row["question"] for row in lines(undisturbed) if "question" in row}
    missing, twice = expected - set(times), [name for name, n in times.items() if n > 1]
    items = json.loads((killed / "workflow_output.json").read_text(encoding="utf-8"))
    print(f"{'questions':24}{len(expected):>14}{len(items):>14}")
    print(f"{'LLM calls made':24}{total:>14}{calls_so_far(killed):>14}")
    print(f"\nmissing: {missing or 'none'}; answered twice: {twice or 'none'}")
    return 1 if missing or twice or len(items) != len(expected) else 0


if __name__ == "__main__":
    sys.exit(main())
