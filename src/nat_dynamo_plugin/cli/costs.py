"""What a report says of costs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nat_dynamo_plugin.evaluators.records import QuestionFigures

MAX_NAMES = 5
"""Functions, or orgs, that are named; the dearest ones."""


def usd(amount: float) -> str:
    """An amount with as many digits as it needs: `$12.34`, `$0.0123`."""
    return f"${amount:,.2f}" if amount >= 1 or amount == 0 else f"${amount:.3g}"


def cost_lines(figures: Sequence[QuestionFigures], scores: Iterable[Path] = ()) -> list[tuple[str, str]]:
    """Labelled lines on costs; none where nothing has a cost.

    Args:
        figures: one entry a question.
        scores: files of evaluators, of which those that score 0 or 1 say which questions were solved.
    """
    known = [figure.cost_usd for figure in figures if figure.cost_usd is not None]
    if not known:
        return []
    total = math.fsum(known)
    notes = []
    if unpriced := sum(figure.unpriced_calls for figure in figures):
        notes.append(f"{unpriced:,} answered calls have no cost")
    if attempts := sum(figure.unpriced_attempts for figure in figures):
        notes.append(f"{attempts:,} broken attempts may be billed besides")
    if saved := math.fsum(figure.saved_usd or 0.0 for figure in figures):
        notes.append(f"the response cache saved {usd(saved)}")
    lines = [("cost", f"{usd(total)}, {usd(total / len(figures))} a question" + "".join(f"; {note}" for note in notes))]
    for path in scores:
        if (solved := _solved(path)) is not None:
            name = path.name.removesuffix("_output.json")
            each = usd(total / solved) if solved else "none was"
            lines.append(("per solved", f"{each} ({solved:,} of {len(figures):,} solved by {name})"))
    functions, orgs = _by(figures, lambda one: one.cost_by_function), _by(figures, lambda one: one.cost_by_org)
    if len(functions) > 1:
        lines.append(("by function", _dearest(functions)))
    if orgs:
        lines.append(("by org", _dearest(orgs)))
    return lines


def _dearest(costs: dict[str, float]) -> str:
    dearest = sorted(costs.items(), key=lambda one: -one[1])
    more = f", {len(costs) - MAX_NAMES:,} more" if len(costs) > MAX_NAMES else ""
    return ", ".join(f"{name} {usd(cost)}" for name, cost in dearest[:MAX_NAMES]) + more


def _by(figures: Sequence[QuestionFigures], part: Callable[[QuestionFigures], dict[str, float]]) -> dict[str, float]:
    costs: dict[str, float] = {}
    for figure in figures:
        for name, cost in part(figure).items():
            costs[name] = costs.get(name, 0.0) + cost
    return costs


def _solved(path: Path) -> int | None:
    """Questions that an evaluator scores 1, if it scores all of them 0 or 1 and is no metric of ours."""
    try:
        output = json.loads(path.read_text(encoding="utf-8"))
        items = output["eval_output_items"]
        scores = [item.get("score") for item in items]
        is_ours = any(isinstance(item.get("reasoning"), dict) and "unit" in item["reasoning"] for item in items)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if is_ours or not scores or not all(score in (0, 1, True, False, None) for score in scores):
        return None
    return sum(1 for score in scores if score == 1)
