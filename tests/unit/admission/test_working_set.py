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
        held.learn(one, 1000, 400)
    assert held.emptied().tokens == 0
    assert held.emptied().cost(one) == held.emptied().cost(one) > 1000
    held.remove(one)
    assert held.emptied().cost(one) == held.cost(one)
    assert held.emptied().cost(Prompt()) == held.cost(Prompt()) > 0


def test_learns_tokens_of_a_byte_and_growth() -> None:
    held = WorkingSet()
    one = Prompt(((1, 3000),))
    for _ in range(300):
        held.learn(one, 1000, 0)
        held.learn(one, 1000, 400)
    assert held.cost(one) == pytest.approx(1000 + 200, rel=0.02)


def test_a_question_is_as_large_as_it_has_grown() -> None:
    held = WorkingSet()
    one, other = Prompt(((1, 4000),)), Prompt(((2, 400),))
    held.add(one)
    held.grow(700)
    held.add(other, grown=50)
    assert held.tokens == 1000 + 700 + 100 + 50
    assert held.cost(Prompt(((3, 4000),)), grown=700) == 1000 + 700
    held.remove(one, grown=700)
    assert held.tokens == 100 + 50
    held.remove(other, grown=50)
    assert held.tokens == 0
