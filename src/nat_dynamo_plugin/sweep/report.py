"""report.html: one file with everything in it, which needs no network."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from nat_dynamo_plugin.drawing.page import style
from nat_dynamo_plugin.sweep.charts import charts
from nat_dynamo_plugin.sweep.results import SweepResult
from nat_dynamo_plugin.sweep.statement import verdict_text


def report_html(result: SweepResult) -> str:
    """The report of a sweep as an HTML page of its own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "" if value is None else f"{value:+.1%}"
    return environment.get_template("report.html.j2").render(
        result=result, verdict=verdict_text(result), figures=charts(result), css=Markup(style())
    )
