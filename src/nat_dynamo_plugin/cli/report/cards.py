"""Why the cache missed, as the page shows it: where the tokens came from, and a card for each cause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from nat_dynamo_plugin.cli.formats import count
from nat_dynamo_plugin.cli.report import causes, figures
from nat_dynamo_plugin.cli.report.misses import Finding, ms_per_token
from nat_dynamo_plugin.cli.report.run import Run
from nat_dynamo_plugin.drawing.svg import element, joined, picture

_MOST_FINDINGS = 12
_MILD = (causes.Served.COLD, causes.Served.UNKNOWN, causes.Served.SHRANK)


def origin(counted: figures.Tokens | None) -> dict[str, Any] | None:
    """Where the prompt tokens came from, as a bar and in figures."""
    if counted is None or not counted.total:
        return None
    at, bars = 0.0, []
    for part, tone in ((counted.cached, 6), (counted.new, 1), (counted.lost, 2)):
        wide = 1000 * part / counted.total
        bars.append(element("rect", x=at, y=0, width=wide, height=22, class_=f"fill s{tone}"))
        at += wide
    said = {name: f"{n:,} ({100 * n / counted.total:.1f} %)" for name, n in counted._asdict().items()}
    label = f"cached {said['cached']}, new {said['new']}, computed again {said['lost']}"
    bar = element("figure", picture(1000, 22, bars, label=label, stretched=True))
    return said | {"total": f"{counted.total:,}", "bar": bar}


def cards(run: Run, found: Sequence[Finding]) -> dict[str, Any]:
    """A card for each of the dearest causes, what is said if there is none, and how it was counted."""
    a_token = ms_per_token(run.calls)
    shown = [_finding(one, a_token) for one in found[:_MOST_FINDINGS]]
    if not run.calls:
        none = "Not known: no LLM call is."
    elif not run.recorded:
        none = (
            "Nothing that an earlier call of its chain had sent was computed again. Between questions it is not known."
        )
    else:
        none = "Nothing was lost: all that earlier calls had sent came out of the cache, as far as whole blocks go."
    how = "Tokens are the server's count. "
    if a_token is None:
        how += "What a token costs in time is not known: in this run the time to first token does not depend on them."
    else:
        how += (
            f"Times are estimates, at {a_token:.3g} ms a token: the median slope of the time to first token over the "
            "tokens computed."
        )
    return {"findings": shown, "no_finding": none, "how_counted": how}


def _finding(finding: Finding, a_token: float | None) -> dict[str, Any]:
    worst = finding.misses[0]
    found, tokens = worst.found, finding.tokens
    measured = "" if all(miss.measured for miss in finding.misses) else ", in part estimated"
    cost = (
        f"{count(len(finding.misses), 'call')} of {count(finding.questions, 'question')} computed {tokens:,.0f} prompt "
    )
    cost += f"tokens again{measured}"
    if a_token is not None:
        cost += f": about {_time(tokens * a_token)}, {_time(tokens * a_token / len(finding.misses))} a call"
    if finding.between and finding.cause is not causes.Served.COLD:
        cost += f". {finding.between:,} of them are first calls, compared with earlier questions of the kind"
    then = f"call {worst.before.number}"
    if worst.before.question != worst.call.question:
        then += f" of {worst.before.question}"
    example = f"The largest: call {worst.call.number} of {worst.call.question} after {then}: {worst.tokens:,.0f} tokens"
    pause = worst.call.record.started_at - worst.before.ended_at
    if found is not None:
        example += f"; {found.what} in {_article(found.where)}" + (
            f", from character {found.at + 1} on" if found.at else ""
        )
    elif pause > 0:
        example += f"; {_time(1000 * pause)} after that one's end"
    before, now = _marked(found.before, found.now) if found else ("", "")
    return {
        "name": finding.name,
        "mild": finding.cause in _MILD,
        "cost": f"{cost}.",
        "advice": code(causes.advice(finding.cause, found)),
        "example": f"{example}.",
        "before": before,
        "now": now,
    }


def code(text: str) -> Markup:
    """What stands between backticks as code."""
    return joined(element("code", part) if n % 2 else escape(part) for n, part in enumerate(text.split("`")))


def _article(where: str) -> str:
    return where if where.startswith("message ") else f"the {where}"


def _marked(before: str, now: str) -> tuple[Markup, Markup]:
    """Both texts with what differs marked."""
    before, now = before.replace("\n", "↵"), now.replace("\n", "↵")
    pairs = list(zip(before, now, strict=False))
    same = next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))
    rest = min(len(before), len(now)) - same
    tail = next((n for n in range(rest) if before[-1 - n] != now[-1 - n]), rest)
    one, other = (
        Markup("{}<mark>{}</mark>{}").format(text[:same], text[same : len(text) - tail], text[len(text) - tail :])
        for text in (before, now)
    )
    return one, other


def _time(ms: float) -> str:
    return f"{ms / 1000:,.1f} s" if ms >= 1000 else f"{ms:,.0f} ms" if ms >= 10 else f"{ms:.2g} ms"
