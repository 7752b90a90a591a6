"""Which questions are asked in almost the same words, and when an answer to one may be given to the other."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from importlib.resources import files
from typing import Any

import pytest
from scipy.stats import beta

from nat_dynamo_plugin.cache.key import read
from nat_dynamo_plugin.cache.near import content_words, near_form, same_answer
from nat_dynamo_plugin.cache.trust import WINDOW, Trust, upper_bound

from .upstream import Model, Upstream, answer, body, post


def form(messages: list[dict[str, Any]], **fields: Any) -> bytes | None:
    asked = read(json.dumps({"model": "m", "temperature": 0, "messages": messages, **fields}).encode())
    assert asked is not None
    return near_form(asked)


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def rows(name: str) -> list[dict[str, Any]]:
    """Of fow-cache's data (Mabon ap Gwyn, 2026, CC BY 4.0)."""
    pytest.importorskip("fow_cache", reason="fow-cache, whose data this is, is not installed")
    folder = files("fow_cache") / "data"
    found = (
        [folder / name]
        if name.endswith(".jsonl")
        else [f for f in (folder / name).iterdir() if f.name.endswith(".jsonl")]
    )
    return [json.loads(line) for file in found for line in file.read_text().splitlines()]


def test_none_of_three_hundred_traps_is_taken() -> None:
    pairs = rows("pairs.jsonl")
    taken = [(content_words(p["a"]) == content_words(p["b"]) is not None, p["same_answer"]) for p in pairs]
    assert len(pairs) == 600 and taken.count((True, False)) == 0
    assert taken.count((True, True)) >= 18  # of 300


@pytest.mark.parametrize("name", ["conv-parts", "conv-long"])
def test_no_conversation_answers_another(name: str) -> None:
    traps = [p for p in rows(name) if not p["same_answer"]]
    assert len(traps) >= 30
    assert not [p["id"] for p in traps if form(p["a"]) == form(p["b"])]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the capital of France?", "what's the capital of france"),
        ("Please cancel my order.", "cancel my order"),
        ("I can't log in", "I cannot log in!"),
        ("Don\u2019t do it", "do not do it"),
        ("WHERE IS IT", "where is it?"),
    ],
)
def test_almost_the_same(one: str, other: str) -> None:
    assert content_words(one) == content_words(other) is not None
    assert form([user(one)]) == form([user([{"type": "text", "text": other}])]) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Convert 10 USD to EUR", "Convert 10 EUR to USD"),
        ("enable 2FA", "disable 2FA"),
        ("Cancel it", "Don't cancel it"),
        ("Add 1.5 g", "Add 15 g"),
        ("5 - 3", "5 + 3"),
        ("costs $5", "costs 5"),
        ("Is IT there?", "Is it there?"),
        ("You deleted it.", "You deleted it?"),
        ("well known", "well-known"),
        ("what does it say", "who does it say"),
    ],
)
def test_not_the_same(one: str, other: str) -> None:
    assert content_words(one) != content_words(other)


@pytest.mark.parametrize("text", ["", "...", "a\nb", "use `ls`", "if (a) { b }", "x" * 2001, "the"])
def test_what_hangs_on_its_form_is_left_alone(text: str) -> None:
    assert content_words(text) is None


def test_only_the_last_users_text_may_differ() -> None:
    history = [user("Hi"), {"role": "assistant", "content": "Hello"}]
    assert form([*history, user("what is it")]) == form([*history, user("What is it?")])
    assert form([*history, user("what is it")]) != form([user("hi!"), history[1], user("what is it")])
    assert form([user("what is it")], top_p=0.5) != form([user("what is it")])
    call = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]}
    result = {"role": "tool", "tool_call_id": "1", "content": "17"}
    picture = user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}])
    for messages in ([user("a"), call, result], [user("a"), call, result, user("b")], [picture], history, []):
        assert form(messages) is None
    assert form([user("a b")], temperature=0.1, seed=1) is None
    assert form([user("a b")], tools=[{"type": "function"}]) is None and form([user("a b")], n=2) is None


@pytest.mark.parametrize(("wrong", "n"), [(0, 1), (0, 298), (0, 299), (1, 473), (5, 50), (49, 50), (50, 50)])
def test_the_bound_is_clopper_and_pearsons(wrong: int, n: int) -> None:
    expected = 1.0 if wrong == n else beta.ppf(0.95, wrong + 1, n - wrong)
    assert upper_bound(wrong, n) == pytest.approx(expected, abs=1e-9)


def test_nothing_is_given_in_the_shadow() -> None:
    trust = Trust("shadow", 0.01, 0.1)
    for _ in range(1000):
        trust.compared(right=True)
    assert not trust.may_give() and trust.standing.bound < 0.01 and trust.standing.compared == WINDOW


def test_it_is_given_from_the_comparison_on_that_shows_the_error(caplog: pytest.LogCaptureFixture) -> None:
    trust = Trust("serve", 0.01, 0.1, draw=lambda: 0.5)
    for _ in range(298):
        trust.compared(right=True)
    assert not trust.may_give()
    with caplog.at_level(logging.WARNING):
        trust.compared(right=True)
    assert trust.may_give() and "0 of 299 wrong" in caplog.text
    trust.compared(right=False)
    assert not trust.may_give() and "no more" in caplog.text
    assert trust.standing.compared == 0  # it has to be shown anew


@pytest.mark.parametrize("seed", range(5))
def test_the_error_is_kept_on_a_stream_whose_meaning_shifts(seed: int) -> None:
    """All is right for long, then nothing is: of what was given, less than the stated share was wrong."""
    draw = random.Random(seed)
    trust = Trust("serve", 0.01, 0.1, draw=draw.random)
    given: list[bool] = []
    for k in range(20_000):
        right = k < 10_000
        if trust.may_give():
            given.append(right)
        else:
            trust.compared(right=right)
    assert len(given) > 5000 and given.count(False) / len(given) < 0.01
    assert not trust.may_give()


def test_an_answer_in_other_words_is_another_one() -> None:
    assert same_answer(answer("It is shut."), answer("it is shut"))
    assert not same_answer(answer("It is shut."), answer("It is open."))
    one, other = answer("x"), answer("x")
    for whole, arguments in ((one, "{}"), (other, '{"a": 1}')):
        whole["choices"][0]["message"]["tool_calls"] = [{"function": {"name": "f", "arguments": arguments}}]
    assert not same_answer(one, other)


SEMANTIC = {"semantic": {"mode": "serve", "max_error": 0.8, "audit": 1e-9}}
"""Two right answers are enough for this error."""


async def test_an_answer_is_given_once_it_may_be(model: Model, upstream: Upstream) -> None:
    async with model.clients(SEMANTIC) as clients:
        for text in ("What is it?", "what is it", "What is it"):
            await post(clients, body(text))
        assert len(upstream.asked) == 3 and [record.cache for record in model.records] == [None] * 3
        given = await post(clients, body("what's it"))
        streamed = await post(clients, body("what's it", stream=True))
        await asyncio.to_thread(clients.sync.post, f"{clients.base_url}/chat/completions", json=body("What's it?"))
    assert given.headers["x-nat-dynamo-cache"].startswith("hit; kind=semantic; age=")
    assert b"data: " in streamed.content and len(upstream.asked) == 3
    assert [record.cache for record in model.records[3:]] == ["semantic"] * 3


async def test_wrong_ones_are_counted_and_never_given(model: Model, upstream: Upstream) -> None:
    texts = iter(("yes", "no", "yes", "no", "yes"))
    upstream.say = lambda _: (200, "application/json", json.dumps(answer(next(texts))).encode())
    async with model.clients(SEMANTIC) as clients:
        for text in ("What is it?", "what is it", "What is it", "what's it", "What's it"):
            await post(clients, body(text))
    cache = model.services[-1].cache
    assert len(upstream.asked) == 5 and cache is not None and cache.trust is not None
    assert cache.trust.standing.wrong == 4 and cache.figures.counts["near_compared", "wrong"] == 4


async def test_the_same_words_again_are_no_comparison(model: Model, upstream: Upstream) -> None:
    async with model.clients({"semantic": {}}) as clients:
        for _ in range(2):
            await post(clients, body("What is it?"), {"cache-control": "no-cache"})
    cache = model.services[-1].cache
    assert cache is not None and cache.trust is not None and cache.trust.standing.compared == 0


async def test_without_it_almost_the_same_is_another_question(model: Model, upstream: Upstream) -> None:
    async with model.clients() as clients:
        for text in ("What is it?", "what is it"):
            await post(clients, body(text))
        cache = model.services[-1].cache
    assert len(upstream.asked) == 2 and cache is not None and len(list(cache.entries())) == 2
