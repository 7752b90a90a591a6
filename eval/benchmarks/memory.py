"""Does a client that has served very many questions stay as small as one that has served some?

100,000 prefixes of two calls each go through one client (answers come from memory). Prints the resident set after every
20,000; the counters of 16,384 chains and the caches are full by the first line.

    python eval/benchmarks/memory.py
"""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path

import httpx
from overhead import HEADERS, InMemory, body, ours

from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
from nat_dynamo_plugin.telemetry import record as telemetry

PREFIXES = 100_000
STEP = 20_000


def resident_mib() -> float:
    """Resident set of this process, MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main() -> int:
    """Run and print; exit code 1 if the last figure exceeds the first by more than 5 %."""
    logging.disable(logging.WARNING)
    telemetry.set_exporters(None)
    client = httpx.Client(transport=ours(InMemory(False)))
    payload = body(1024, "ASCII")
    figures = []
    for i in range(1, PREFIXES + 1):
        with DynamoPrefixContext.scope(f"question-{i:06d}-of-a-long-day"):
            for _ in range(2):
                client.post("http://127.0.0.1:1/v1/chat/completions", content=payload, headers=HEADERS)
        if i % STEP == 0:
            gc.collect()
            figures.append(resident_mib())
            print(f"{i:7,d} prefixes: {figures[-1]:.1f} MiB", flush=True)
    return int(figures[-1] > figures[0] * 1.05)


if __name__ == "__main__":
    sys.exit(main())
