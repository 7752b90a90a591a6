"""report.html: one file with everything in it, which needs no network."""

from __future__ import annotations

from pathlib import Path

from nat_dynamo_plugin.sweep.charts import charts
from nat_dynamo_plugin.sweep.results import SweepResult
from nat_dynamo_plugin.sweep.statement import verdict_text


def report_html(result: SweepResult) -> str:
    """The report of a sweep as an HTML page of its own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.io import to_html
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "" if value is None else f"{value:+.1%}"
    figures = {
        name: to_html(
            figure,
            include_plotlyjs=False,
            full_html=False,
            div_id=f"figure-{name}",
            config={"displayModeBar": False, "responsive": True},
        )
        for name, figure in charts(result).items()
    }
    return environment.get_template("report.html.j2").render(
        result=result, verdict=verdict_text(result), figures=figures, plotly=get_plotlyjs()
    )
