"""How a bench is shown: text for people, plain data for JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nat_dynamo_plugin.cli.bench.blocks import ARMS
from nat_dynamo_plugin.cli.bench.judged import OBJECTIVES, Figure, Judged, verdict
from nat_dynamo_plugin.cli.bench.server import Server
from nat_dynamo_plugin.cli.tables import markdown

_PACKAGES = ("nat-dynamo-plugin", "nvidia-nat-core", "openai", "httpx", "aiohttp")


def machine() -> dict[str, str]:
    """Where the clients run, and the versions that matter."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"cpu": _cpu(), "cores": str(os.cpu_count()), "system": platform.platform(terse=True), **versions}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def as_data(server: Server, load: str, found: Sequence[Judged]) -> dict[str, Any]:
    """All that was measured, JSON-ready."""
    return {
        "server": asdict(server),
        "load": load,
        "machine": machine(),
        "levels": [asdict(one) | {"outcome": one.outcome} for one in found],
        "verdict": verdict(found),
    }


def of_server(server: Server) -> str:
    """What the server is, and what does not act there."""
    if server.is_dynamo:
        workers = "" if server.workers is None else f", {server.workers} workers"
        what = f"{server.base_url}: Dynamo{workers}, model {server.model}"
    else:
        what = (
            f"{server.base_url}: not Dynamo (its /health lists no instances), model {server.model}. Hints and sessions "
            "do not act there; measured is what is left of the plugin: its HTTP engine and its layers"
        )
    if not server.says_cached:
        what += "\nIt does not say how many tokens were cached, so there is no reuse."
    return what


def as_text(server: Server, load: str, found: Sequence[Judged]) -> str:
    """A table and the verdict."""
    rows = []
    for one in found:
        for name, figure in one.figures.items():
            rows.append([str(one.concurrency), name, *_cells(name, figure)])
    names = ["at once", "what", "plain", "plugin", "gain", "interval", ""]
    parts = [f"{of_server(server)}.", f"Load: {load}.", "; ".join(f"{k} {v}" for k, v in machine().items())]
    if rows:
        parts += ["", markdown(names, rows)]
    for one in found:
        if any(one.failed.values()):
            failed = ", ".join(f"{arm} {one.failed[arm]}" for arm in ARMS)
            parts.append(f"{one.concurrency} at once: failed calls: {failed}; the first: {one.problem}")
        if one.why_not:
            parts.append(f"{one.concurrency} at once: no verdict: {one.why_not}")
    return "\n".join([*parts, "", verdict(found)])


def _cells(name: str, figure: Figure) -> list[str]:
    objective = OBJECTIVES[name]
    difference = figure.gain.is_difference
    gain, low, high = (
        objective.shown_gain(one, difference=difference)
        for one in (figure.gain.estimate, figure.gain.low, figure.gain.high)
    )
    return [
        objective.shown(figure.plain),
        objective.shown(figure.plugin),
        gain,
        f"{low} to {high}",
        "" if figure.outcome == "inconclusive" else figure.outcome,
    ]
