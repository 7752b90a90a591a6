"""The pictures of a run: who served what, and when what happened in a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from nat_dynamo_plugin.cli.report.figures import Worker
from nat_dynamo_plugin.cli.report.misses import Sent, ttft_ms, waits_ms
from nat_dynamo_plugin.cli.report.run import Asked
from nat_dynamo_plugin.drawing.svg import element, number, picture, title

_WIDE = 1000.0
_LANE = 16.0
_LEAST = 0.8
"""The least width of what is drawn, so that what was short is still seen."""
_SEEN_MS = 0.5
"""What took less is not drawn, where it is no part of every call."""
_MOST_CELLS = 60
_COLOURS = 7


def tones(workers: Sequence[Worker]) -> dict[int, int]:
    """A colour for each worker: the busiest ones have their own, all others the last one together."""
    if len(workers) <= _COLOURS + 1:
        return {worker.id: n for n, worker in enumerate(workers, start=1)}
    busiest = sorted(workers, key=lambda worker: -worker.calls)[:_COLOURS]
    own = sorted(busiest, key=lambda worker: worker.number)
    return {worker.id: _COLOURS + 1 for worker in workers} | {one.id: n for n, one in enumerate(own, start=1)}


def load(worker: Worker, most: float, tone: int) -> Markup:
    """How busy a worker was in the course of the run, as an area; `most` is the height of all of them."""
    high = 26.0
    steps = "".join(f"V{number(high - high * value / most)}h1" for value in worker.load)
    path = element("path", d=f"M0 {number(high)}{steps}V{number(high)}z", class_=f"fill s{tone}")
    busiest = max(worker.load, default=0.0)
    label = f"worker {worker.number}: {worker.calls:,} calls, at most {busiest:.1f} at once"
    return picture(float(len(worker.load)), high, [title(label) or Markup(), path], label=label, stretched=True)


def strip(asked: Asked, numbers: Mapping[int, int], tone: Mapping[int, int]) -> Markup:
    """A question's calls, one under the other, in the colours of their workers; a move is marked at the side."""
    wide, high = 9.0, 6.0
    paths: dict[str, str] = {}
    last: dict[str, int] = {}
    for n, call in enumerate(asked.calls[:_MOST_CELLS]):
        worker = call.record.worker_id
        cell = f"M2 {number(n * high)}h{number(wide - 2)}v{number(high - 1)}h-{number(wide - 2)}z"
        name = "failed" if call.record.failed else "none" if worker is None else f"fill s{tone[worker]}"
        paths[name] = paths.get(name, "") + cell
        if worker is not None:
            if last.get(call.chain, worker) != worker:
                paths["moved"] = paths.get("moved", "") + f"M0 {number(n * high)}h2v{number(high - 1)}h-2z"
            last[call.chain] = worker
    served = " ".join("-" if (w := call.record.worker_id) is None else str(numbers[w]) for call in asked.calls)
    label = f"{asked.id}: {'no call' if not asked.calls else 'workers ' + served}"
    tall = high * max(1, min(len(asked.calls), _MOST_CELLS))
    drawn = (element("path", d=path, class_=name) for name, path in paths.items())
    return element("svg", title(label), *drawn, viewBox=f"0 0 9 {number(tall)}", width="9", height=number(tall))


def timeline(asked: Asked, numbers: Mapping[int, int]) -> Markup | None:
    """A question's calls and tools in the course of its time, a lane for each chain; `None` if nobody knows when."""
    begin, seconds = asked.started_at, asked.seconds
    if begin is None or not seconds or not asked.calls:
        return None
    scale = _WIDE / seconds
    lanes = {chain: n for n, chain in enumerate(dict.fromkeys(call.chain for call in asked.calls))}
    high = _LANE * len(lanes)
    parts = [
        element(
            "path",
            title(f"tool {tool.name}: {_ms(1000 * (tool.ended_at - tool.started_at))}"),
            d=_box((tool.started_at - begin) * scale, (tool.ended_at - tool.started_at) * scale, 5, high - 9),
            class_="tool",
        )
        for tool in asked.tools
    ]
    parts += [_call(call, (call.record.started_at - begin) * scale, scale / 1000, lanes[call.chain] * _LANE, numbers)
              for call in asked.calls]  # fmt: skip
    return element("svg", *parts, viewBox=f"0 0 1000 {number(high)}", height=number(high), preserveAspectRatio="none")


def _call(call: Sent, x: float, scale: float, y: float, numbers: Mapping[int, int]) -> Markup:
    """One call: its waits, its prefill (the cached share of the prompt below, what is new above), its answer."""
    record, top, high = call.record, y + 1, _LANE - 3
    total = record.client_total_ms or 0.0
    if record.failed:
        why = record.kind or record.failure
        told = f"call {call.number} failed: {why}, after {_ms(total)}"
        return element("g", title(told), element("path", d=_box(x, total * scale, top, high), class_="failed"))
    waited = min(waits_ms(record), total)
    first, last = _phases(call, waited, total)
    cached = high * _cached(call)
    told = f"call {call.number}, {_served(call, numbers)}{_counts(call)}: "
    told += f"waited {_ms(waited)}, " if waited >= _SEEN_MS else ""
    told += (
        f"prefill {_ms(first - waited)}, answer {_ms(last - first)}"
        if first > waited
        else f"answer {_ms(last - first)}"
    )
    told += f", way and client {_ms(total - last)}" if total - last >= _SEEN_MS else ""
    boxes = (
        ("wait", 0.0, waited, top, high),
        ("new", waited, first, top, high - cached),
        ("cached", waited, first, top + high - cached, cached),
        ("decode", first, last, top, high),
        ("way", last, total, top + high / 2 - 1, 2.0),
    )
    paths = [
        element("path", d=_box(x + begin * scale, (end - begin) * scale, up, tall), class_=name)
        for name, begin, end, up, tall in boxes
        if tall and (end - begin >= _SEEN_MS or (end > begin and name not in ("wait", "way")))
    ]
    return element("g", title(told), *paths)


def _phases(call: Sent, waited: float, total: float) -> tuple[float, float]:
    """When the first token and the last one came, in ms after the call was made.

    A client that reads a stream sees both. Otherwise the server says how long it took, and what is left of the call's
    time went by on the way and in the client; it is drawn behind the answer.
    """
    ttft, answer = ttft_ms(call.record), call.record.server_total_ms
    if call.record.client_ttft_ms is not None:
        return min(total, max(waited, call.record.client_ttft_ms)), total
    first = waited if ttft is None else min(total, waited + ttft)
    return first, total if answer is None else min(total, max(first, waited + answer))


def _cached(call: Sent) -> float:
    """Which share of the prompt was cached; 0 if nobody said."""
    prompt, cached = call.record.prompt_tokens, call.record.cached_tokens
    return cached / prompt if prompt and cached else 0.0


def _served(call: Sent, numbers: Mapping[int, int]) -> str:
    worker = call.record.worker_id
    return "worker not known" if worker is None else f"worker {numbers[worker]}"


def _counts(call: Sent) -> str:
    record = call.record
    if record.prompt_tokens is None:
        return ""
    cached = "" if record.cached_tokens is None else f" ({record.cached_tokens:,} cached)"
    return f", {record.prompt_tokens:,} tokens{cached}"


def _box(x: float, wide: float, y: float, high: float) -> str:
    wide = max(wide, _LEAST)
    return f"M{number(x)} {number(y)}h{number(wide)}v{number(high)}h-{number(wide)}z"


def _ms(value: float) -> str:
    return f"{value / 1000:,.2f} s" if value >= 1000 else f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"
