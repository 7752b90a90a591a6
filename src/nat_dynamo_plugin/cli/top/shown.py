"""How a view is shown: a table on a terminal, a few lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nat_dynamo_plugin.cli import formats
from nat_dynamo_plugin.cli.top.counts import View

if TYPE_CHECKING:
    from rich.console import RenderableType

_MOST_FAILURES = 4


def lines(seen: View) -> list[str]:
    """A view as plain lines: what it is, how its calls go, then a line a worker."""
    rate = "" if seen.calls_per_s is None else f", {seen.calls_per_s:.1f} a second"
    told = [seen.source, f"  {_now(seen)}", f"  calls {seen.calls:,.0f}{rate}, {_failed(seen)}"]
    told.append(f"  reuse {_share(seen.reuse)}, TTFT {_ms(seen.ttft_s)}, p95 {_ms(seen.ttft_p95_s)}")
    told += [f"  worker {key}: {_worker(worker)}" for key, worker in seen.workers.items()]
    return told


def panel(seen: View) -> RenderableType:
    """A view for a terminal."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    first, *rest = lines(seen)
    head = [Text(line.strip()) for line in rest if not line.startswith("  worker ")]
    if seen.failed_now:
        head[1].stylize("bold red")
    if not seen.workers:
        return Panel(Group(*head), title=Text(first), title_align="left")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("worker", "calls", "KV in use", "", "to prefill", "last TTFT", "reuse"):
        table.add_column(name, justify="left" if name in ("worker", "") else "right")
    for key, worker in seen.workers.items():
        use = worker["kv_use"]
        table.add_row(
            Text(key),
            _number(worker["calls"]),
            _share(use),
            Text("█" * round(20 * min(use or 0.0, 1.0)), style="cyan"),
            _number(worker["prefill_tokens"]),
            _ms(worker["last_ttft_s"]),
            _share(worker["reuse"]),
        )
    return Panel(Group(*head, Text(), table), title=Text(first), title_align="left")


def _now(seen: View) -> str:
    told = [f"{seen.what} under way {_number(seen.under_way)}", f"waiting {_number(seen.waiting)}"]
    if seen.done is not None:
        told.append(f"done {seen.done:,}" + ("" if seen.total is None else f" of {seen.total:,}"))
    return ", ".join(told)


def _failed(seen: View) -> str:
    if not seen.failed:
        return "none failed"
    most = dict(sorted(seen.failed.items(), key=lambda one: -one[1])[:_MOST_FAILURES])
    return f"failed {sum(seen.failed.values()):,} ({formats.kinds(most)}), {seen.failed_now} since the last look"


def _worker(worker: object) -> str:
    assert isinstance(worker, dict)
    shown = {
        "calls": _number(worker["calls"]),
        "KV in use": _share(worker["kv_use"]),
        "to prefill": _number(worker["prefill_tokens"]),
        "last TTFT": _ms(worker["last_ttft_s"]),
        "reuse": _share(worker["reuse"]),
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items() if value != "-") or "idle"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _ms(value_s: float | None) -> str:
    return "-" if value_s is None else f"{1000 * value_s:,.1f} ms"
