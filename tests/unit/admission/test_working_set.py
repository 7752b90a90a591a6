from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.admission.prompts import Prompt
from nat_dynamo_plugin.admission.working_set import FIRST_TOKENS_A_BYTE, WorkingSet

paths = st.lists(st.integers(0, 3), max_size=5)


def prompt(path: list[int]) -> Prompt:
    """A path in a tree with four branches at each piece; a piece's size is told by its key."""
    keys = [hash(tuple(path[: n + 1])) for n in range(len(path))]
    return Prompt(tuple((key, 100 + key % 400) for key in keys))


@given(st.lists(paths), st.randoms(use_true_random=False))
def test_is_the_size_of_the_tree_whatever_comes_and_goes(all_paths: list[list[int]], random: object) -> None:
    prompts = [prompt(path) for path in all_paths]
    held = WorkingSet()
    for one in prompts:
        before = held.tokens
        cost = held.cost(one)
        held.add(one)
        assert held.tokens == pytest.approx(before + cost)
    tree = dict(piece for one in prompts for piece in one.pieces)
    assert held.tokens == pytest.approx(sum(tree.values()) * FIRST_TOKENS_A_BYTE)
    random.shuffle(prompts)  # type: ignore[attr-defined]
    for number, one in enumerate(prompts, start=1):
        held.remove(one)
        rest = dict(piece for other in prompts[number:] for piece in other.pieces)
        assert held.tokens == pytest.approx(sum(rest.values()) * FIRST_TOKENS_A_BYTE)


def test_an_emptied_set_has_learned_as_much() -> None:
    held = WorkingSet()
    one = Prompt(((1, 3000),))
    held.add(one)
    for _ in range(100):
        held.learn(one, 1000, 1400)
    assert held.emptied().tokens == 0
    assert held.emptied().cost(one) == held.emptied().cost(one) > 1000
    held.remove(one)
    assert held.emptied().cost(one) == held.cost(one)
    assert held.emptied().cost(Prompt()) == held.cost(Prompt()) > 0


def test_learns_tokens_of_a_byte_and_growth() -> None:
    held = WorkingSet()
    one = Prompt(((1, 3000),))
    for _ in range(300):
        held.learn(one, 1000, 1000)
        held.learn(one, 1000, 1400)
    assert held.cost(one) == pytest.approx(1000 + 200, rel=0.02)


def test_a_prompt_that_got_shorter_is_no_growth() -> None:
    held = WorkingSet()
    for _ in range(100):
        held.learn(Prompt(((1, 4000),)), 1000, 200)
    assert held.cost(Prompt(((1, 4000),))) == pytest.approx(1000)
