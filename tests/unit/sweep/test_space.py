"""The space of tuned values and the plan of trials."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nat.data_models.optimizable import OptimizableField, OptimizableMixin, SearchSpace
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BaseModel

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.sweep.space import TunedSpace, check_tuned, choices, distribution, short_names, value_at


class Holder(BaseModel):
    llms: dict[str, Any]


@pytest.fixture
def config() -> Holder:
    return Holder(llms={"a.b": DynamoModelConfig(model_name="m", base_url="http://x/v1")})


def spaces(**more: SearchSpace) -> dict[str, SearchSpace]:
    return {
        "llms.a.b.prefix_total_requests": SearchSpace(low=1, high=28, step=3),
        "llms.a.b.prefix_osl": SearchSpace(values=["LOW", "MEDIUM", "HIGH"]),
        "llms.a.b.prefix_iat": SearchSpace(values=["LOW", "MEDIUM", "HIGH"]),
        **more,
    }


def test_reads_values_through_names_with_dots(config: Holder) -> None:
    assert value_at(config, "llms.a.b.prefix_osl") == "MEDIUM"


def test_a_path_that_is_not_there_names_the_nearest(config: Holder) -> None:
    with pytest.raises(ValueError, match="did you mean prefix_osl"):
        value_at(config, "llms.a.b.prefix_ols")


@pytest.mark.parametrize(
    ("space", "current", "expected"),
    [
        (SearchSpace(low=1, high=28, step=3), 10, IntDistribution(1, 28, step=3)),
        # A current value beside the grid is one more value to choose.
        (SearchSpace(low=1, high=20, step=5), 10, CategoricalDistribution([10, 1, 6, 11, 16])),
        (SearchSpace(low=1, high=20), 30, IntDistribution(1, 30)),
        (SearchSpace(values=["LOW", "HIGH"]), 300, CategoricalDistribution([300, "LOW", "HIGH"])),
        (SearchSpace(low=0.0, high=1.0), 2.0, FloatDistribution(0.0, 2.0)),
        (SearchSpace(low=0.0, high=1.0, step=0.25), 0.5, FloatDistribution(0.0, 1.0, step=0.25)),
        (SearchSpace(low=1, high=4, step=1), "auto", CategoricalDistribution(["auto", 1, 2, 3, 4])),
    ],
)
def test_the_current_value_is_always_in_the_space(space: SearchSpace, current: Any, expected: Any) -> None:
    assert distribution(space, current) == expected


@given(low=st.integers(-20, 20), length=st.integers(1, 40), step=st.integers(1, 9), current=st.integers(-60, 60))
def test_any_current_number_can_be_chosen(low: int, length: int, step: int, current: int) -> None:
    values = choices(distribution(SearchSpace(low=low, high=low + length, step=step), current))
    assert values is not None and current in values
    assert set(range(low, low + length + 1, step)) <= set(values)


@settings(max_examples=10, deadline=None)
@given(sampler=st.sampled_from(["qmc", "random", "grid"]), seed=st.integers(0, 2**31), n=st.integers(2, 24))
def test_plans_start_with_the_current_config_repeat_nothing_and_follow_the_seed(
    sampler: Any, seed: int, n: int
) -> None:
    config = Holder(llms={"a.b": DynamoModelConfig(model_name="m", base_url="http://x/v1")})
    space = TunedSpace(config, spaces())
    plan = space.plan(sampler, n, seed)
    assert plan[0] == space.current
    assert len(plan) == n
    assert all(values not in plan[:k] for k, values in enumerate(plan))
    assert space.plan(sampler, n, seed) == plan


def test_a_longer_plan_goes_on_from_a_shorter_one(config: Holder) -> None:
    space = TunedSpace(config, spaces())
    assert space.plan("qmc", 24, 3)[:10] == space.plan("qmc", 10, 3)


def test_seeds_differ(config: Holder) -> None:
    space = TunedSpace(config, spaces())
    assert space.plan("qmc", 24, 3) != space.plan("qmc", 24, 4)


def test_a_small_space_is_tried_whole(config: Holder) -> None:
    small = {"llms.a.b.prefix_osl": SearchSpace(values=["LOW", "MEDIUM", "HIGH"])}
    plan = TunedSpace(config, small).plan("qmc", 24, 0)
    assert sorted(values["llms.a.b.prefix_osl"] for values in plan) == ["HIGH", "LOW", "MEDIUM"]


def test_a_grid_needs_steps(config: Holder) -> None:
    endless = {"llms.a.b.temperature": SearchSpace(low=0.0, high=1.0)}
    config.llms["a.b"].temperature = 0.5
    with pytest.raises(ValueError, match=r"grid.*temperature"):
        TunedSpace(config, endless).plan("grid", 5, 0)
    assert len(TunedSpace(config, endless).plan("qmc", 5, 0)) == 5


def test_nothing_to_tune_is_an_error(config: Holder) -> None:
    with pytest.raises(ValueError, match="optimizable_params"):
        TunedSpace(config, {})


def test_short_names_stay_apart() -> None:
    assert short_names(["llms.a.osl", "llms.b.osl", "llms.a.iat"]) == {
        "llms.a.osl": "a.osl",
        "llms.b.osl": "b.osl",
        "llms.a.iat": "iat",
    }


class Tunable(OptimizableMixin):
    speed: int = OptimizableField(default=1, space=SearchSpace(low=1, high=3))
    colour: str = "red"


class Outer(BaseModel):
    parts: dict[str, Tunable]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["sped"], r"parts\.a\.optimizable_params: 'sped' is not tuned: there is no such field; did you mean speed\?"),
        (["speed", "colour"], r"'colour' is not tuned: it has no search space; known are speed"),
    ],
)
def test_a_name_that_tunes_nothing_is_an_error(named: list[str], message: str) -> None:
    config = Outer(parts={"b": Tunable(optimizable_params=["speed"]), "a": Tunable(optimizable_params=named)})
    with pytest.raises(ValueError, match=message):
        check_tuned(config)


def test_a_name_with_a_space_of_its_own_is_tuned() -> None:
    check_tuned(Outer(parts={"a": Tunable(optimizable_params=["speed"])}))
    colours = {"colour": SearchSpace(values=["red", "blue"])}
    check_tuned(Outer(parts={"a": Tunable(optimizable_params=["colour"], search_space=colours)}))
