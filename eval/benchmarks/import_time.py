"""What importing the plugin adds to a `nat` command.

Each repetition is a new interpreter. It loads NAT's core components and evaluators the way `nat` does (through their
entry points, with the registry's change hooks paused; agent frameworks are left out, whose imports take seconds) and
times, after that, the import of `nat_dynamo_plugin.register`.

    python eval/benchmarks/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

REPETITIONS = 15
PROBE = """
import sys, time, warnings
warnings.simplefilter("ignore")
from importlib.metadata import entry_points
from nat.cli.type_registry import GlobalTypeRegistry
with GlobalTypeRegistry.get().pause_registration_changed_hooks():
    started = time.perf_counter()
    for entry in entry_points(group="nat.components"):
        if not entry.value.startswith("nat.plugins.") or entry.name == "nat_evaluators":
            entry.load()
    nat = time.perf_counter() - started
    started = time.perf_counter()
    import nat_dynamo_plugin.register
    print(nat * 1e3, (time.perf_counter() - started) * 1e3)
"""


def main() -> int:
    """Run and print medians and quartiles in ms."""
    times: list[tuple[float, float]] = []
    for repetition in range(REPETITIONS + 1):
        ran = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
        if repetition:  # the first may compile
            nat, ours = map(float, ran.stdout.split()[-2:])
            times.append((nat, ours))
    for name, values in (
        ("NAT's core components", [n for n, _ in times]),
        ("nat_dynamo_plugin", [o for _, o in times]),
    ):
        low, median, high = statistics.quantiles(values, n=4)
        print(f"{name:22s} median {median:7.1f} ms   quartiles {low:.1f} to {high:.1f}   minimum {min(values):.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
