"""The page as a whole: what stands in it, that nothing in it comes from outside, and that it never grows too heavy."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from nat_dynamo_plugin.cli.report.page import MOST_BYTES, distinct_names, page
from nat_dynamo_plugin.cli.report.run import load
from nat_dynamo_plugin.nat.journal import JOURNAL, Answered, Journal
from nat_dynamo_plugin.recording.rows import RecordedCall

from .making import SYSTEM, message, record, step, tool, workflow, write_recording, write_run

EVIL = "\"><script>alert(1)</script>'<img src=x onerror=alert(1)>&"


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def read(text: str) -> str:
    """A page's words."""
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL)).split())


def asked(name: str, at: float, calls: int = 3, **known: Any) -> list[dict[str, Any]]:
    made = [
        record(
            prefix_id=name, session_id=name, started_at=at + n, prompt_tokens=1000 + 100 * n, cached_tokens=0, **known
        )
        for n in range(calls)
    ]
    return [*map(step, made), tool("ls", at + 0.5, at + 0.7), *workflow(at, at + calls)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three questions with a clock in the system message at each call, of which one failed."""
    rows = [
        RecordedCall(
            f"q{q}", 100.0 * q + n, 0.1,
            [message("system", f"It is 10:0{q}:0{n}. {SYSTEM}"), *(message("user", "more") for _ in range(n + 1))],
        )
        for q in (1, 2, 3) for n in range(3)
    ]  # fmt: skip
    file = write_recording(tmp_path / "calls.jsonl", rows)
    questions = {f"q{q}": asked(f"q{q}", 100.0 * q) for q in (1, 2, 3)}
    questions["q3"][0] = step(record(prefix_id="q3", started_at=300.0, status=503, error="busy", kind="overloaded"))
    return write_run(
        tmp_path / "run", questions, failures={"q3": ("overloaded", "busy")},
        config={"llms": {"main": {"_type": "dynamo", "record": str(file)}}},
    )  # fmt: skip


def test_what_a_page_says(run: Path) -> None:
    text = page([load(run)])
    said = read(text)
    assert said.index("1 of 3 questions failed, 1 of 9 LLM calls") < said.index("Why the cache missed")
    assert "overloaded 1 1 busy first in q3; 1 at worker 1" in said
    assert "1. A clock in the system message" in said
    assert "before: It is 10:01:0 1 . You help" in said and "<mark>2</mark>" in text
    assert "Move it out of the system message" in said
    assert "q3 3.00 s · 3 calls" in said
    assert said.index("q3 3.00 s") < said.index("q1 3.00 s")


def test_a_page_needs_nothing_but_itself(run: Path) -> None:
    elements = Elements(page([load(run), load(run)])).found
    assert not [tag for tag, _ in elements if tag in ("script", "link", "img", "iframe")] or [
        attributes for tag, attributes in elements if tag == "link"
    ] == [{"rel": "icon", "href": "data:,"}]
    outside = [
        value
        for _, attributes in elements
        for name, value in attributes.items()
        if name in ("href", "src", "xlink:href") and not (value or "").startswith(("#", "data:,"))
    ]
    assert outside == []


def test_links_lead_to_what_is_there(run: Path) -> None:
    elements = Elements(page([load(run), load(run)])).found
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    links = {(attributes["href"] or "")[1:] for tag, attributes in elements if tag == "a"}
    assert len(ids) == len(set(ids)) and links and links <= set(ids)


def test_all_that_a_run_says_is_text(tmp_path: Path) -> None:
    steps = asked(EVIL, 100.0, error=EVIL, error_type=EVIL)
    steps[3] = tool(EVIL, 100.1, 100.3)
    answered = asked("q2", 200.0)
    rows = [
        RecordedCall(
            "q2", 200.0 + n, 0.1, [message("system", f"{EVIL} 10:00:0{n} {SYSTEM}{EVIL}")], tools=[EVIL, f"{n}"]
        )
        for n in range(3)
    ]
    file = write_recording(tmp_path / "calls.jsonl", rows)
    config = {"llms": {EVIL: {"record": str(file), EVIL: EVIL}}}
    runs = []
    for n in (1, 2):
        folder = tmp_path / f"{n}{EVIL.replace('/', '')}"
        write_run(
            folder, {EVIL: steps, "q2": answered}, config=config | {"n": f"{EVIL}{n}"}, failures={EVIL: ("x", EVIL)}
        )
        runs.append(load(folder))
    text = page(runs)
    elements = Elements(text).found
    assert EVIL in read(text)
    assert not [tag for tag, _ in elements if tag in ("script", "img")]
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    css = text[text.index("<style>") : text.index("</style>")]
    assert "&gt;" not in css and "&#" not in css


def test_two_runs(run: Path, tmp_path: Path) -> None:
    slower = {f"q{q}": asked(f"q{q}", 100.0 * q, calls=4 + q) for q in (1, 2, 3)}
    other = write_run(tmp_path / "slower", slower, config={"llms": {"main": {"_type": "dynamo", "temperature": 1}}})
    quick = write_run(tmp_path / "quick", {f"q{q}": asked(f"q{q}", 100.0 * q) for q in (1, 2, 3)})
    said = read(page([load(quick), load(other)]))
    assert "slower against quick" in said
    assert re.search(r"question latency 3\.00 s 6\.00 s \+\d+\.\d % \(\+\d+\.\d to \+\d+\.\d\) 3 ▼ worse", said)
    assert "llms.main.temperature - 1" in said
    said = read(page([load(quick), load(run)]))
    assert "There is nothing to compare" in said


def test_a_secret_of_a_config_stays_out(tmp_path: Path) -> None:
    key = "sk-a-key-of-no-one-4711"
    runs = [
        load(write_run(tmp_path / name, {"q1": asked("q1", 100.0)}, config={"llms": {"main": {"api_key": value}}}))
        for name, value in (("one", key), ("two", "sk-another-key-4712"))
    ]
    text = page(runs)
    assert "llms.main.api_key" in text and key not in text and "***" in text


def test_a_large_run_stays_light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_BYTES < 1_000_000
    monkeypatch.setattr("nat_dynamo_plugin.cli.report.page.MOST_BYTES", 200_000)
    questions = {f"question-{n}": asked(f"question-{n}", 10.0 * n + 1, calls=9) for n in range(1, 201)}
    run = load(write_run(tmp_path, questions))
    for runs in ([run], [run, run]):
        text = page(runs)
        assert 80_000 < len(text.encode()) < 210_000
        assert re.search(r"\d+ of 200 are shown: with more the page would be too heavy", read(text))
        assert re.search(r"Shown are of 200 questions the first \d+\.", read(text))


def test_a_run_that_was_cut(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL)
    journal.begin("f", 5, keep=False)
    journal.question(Answered(id="q1", asked="a", output="x", trajectory=asked("q1", 100.0)))
    journal.question(Answered(id="q2", asked="b", failure="overloaded", error="busy"))
    journal.close()
    said = read(page([load(tmp_path)]))
    assert "2 questions, 3 LLM calls" in said and "1 of 2 questions failed, 0 of 3 LLM calls" in said
    assert "Note: the run was cut or still goes on: 1 of 5 questions are answered" in said
    assert "q1 3.00 s · 3 calls" in said


def test_names_of_runs(tmp_path: Path) -> None:
    one, other = (load(write_run(tmp_path / folder, {"q1": []})) for folder in ("a/run", "b/run"))
    assert distinct_names([one]) == ["run"]
    assert distinct_names([one, other]) == ["a/run", "b/run"]
    assert [name.rpartition("/")[2] for name in distinct_names([one, one])] == ["run (1)", "run (2)"]
