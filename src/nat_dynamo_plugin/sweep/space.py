"""What is tuned: paths into the config, their values now, and the values to try; and the plan of which to try. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal

import optuna
from nat.data_models.optimizable import SearchSpace
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel

from nat_dynamo_plugin.config.names import has_space
from nat_dynamo_plugin.nearest import nearest_or_all
from nat_dynamo_plugin.sweep.samplers import planning_sampler

Values = dict[str, Any]
"""A configuration to try: a value for each tuned path."""

_MAX_LISTED = 4096
_LARGEST_PLAN = 1_000_000


def plain(value: Any) -> Any:
    """A config value as YAML and JSON have it."""
    return value.value if isinstance(value, Enum) else value


def places(config: BaseModel, path: str) -> list[tuple[Any, str]]:
    """The models and mappings along a dotted path, from the config down, each with the name in it.

    Names in mappings may hold dots, so the longest one that fits is taken.

    Raises:
        ValueError: naming the part of the path that there is not, and the nearest one.
    """
    found: list[tuple[Any, str]] = []
    holder: Any = config
    rest = path
    while rest:
        if not isinstance(holder, BaseModel | Mapping):
            raise ValueError(f"search_space: {path!r} is no place in this config: {found[-1][1]!r} holds {holder!r}")
        names = [str(name) for name in (holder if isinstance(holder, Mapping) else type(holder).model_fields)]
        name = max((name for name in names if rest == name or rest.startswith(f"{name}.")), key=len, default=None)
        if name is None:
            part = rest.split(".")[0]
            hint = nearest_or_all(part, names)
            raise ValueError(f"search_space: {path!r} is no place in this config: there is no {part!r}; {hint}")
        found.append((holder, name))
        rest = rest[len(name) + 1 :]
        holder = holder[name] if isinstance(holder, Mapping) else getattr(holder, name)
    return found


def value_at(config: BaseModel, path: str) -> Any:
    """The value at a dotted path, as YAML has it."""
    holder, name = places(config, path)[-1]
    return plain(holder[name] if isinstance(holder, Mapping) else getattr(holder, name))


def check_tuned(config: BaseModel, place: str = "") -> None:
    """Refuse names in `optimizable_params` that tune nothing, which NAT passes over in silence.

    Raises:
        ValueError: naming the field, the component and the nearest field that can be tuned.
    """
    fields = type(config).model_fields
    spaces: Mapping[str, Any] = getattr(config, "search_space", None) or {}
    named = getattr(config, "optimizable_params", None)
    inner = {name: getattr(config, name) for name in fields}
    tunable = [name for name in fields if name in spaces or has_space(fields[name]) or _holds_models(inner[name])]
    for name in named if isinstance(named, list) else ():
        if name not in tunable:
            why = "it has no search space" if name in fields else "there is no such field"
            hint = nearest_or_all(name, tunable)
            raise ValueError(f"{place}.optimizable_params: {name!r} is not tuned: {why}; {hint}")
    for name, value in inner.items():
        within = f"{place}.{name}".lstrip(".")
        for key, one in value.items() if isinstance(value, Mapping) else [("", value)]:
            if isinstance(one, BaseModel):
                check_tuned(one, f"{within}.{key}".rstrip("."))


def _holds_models(value: Any) -> bool:
    inner = value.values() if isinstance(value, Mapping) else [value]
    return any(isinstance(one, BaseModel) for one in inner)


def distribution(space: SearchSpace, current: Any) -> BaseDistribution:
    """Optuna's distribution of a search space, widened where needed so that it holds the current value."""
    if space.values is not None:
        values = [plain(value) for value in space.values]
        return CategoricalDistribution(values if current in values else [current, *values])
    low, high, step = space.low, space.high, space.step
    assert low is not None and high is not None
    number = isinstance(current, int | float) and not isinstance(current, bool)
    whole = isinstance(low, int) and isinstance(high, int) and (step is None or float(step).is_integer())
    if whole:
        grid = range(low, high + 1, int(step or 1))
        if number and current in grid:
            return IntDistribution(low, grid[-1], log=space.log, step=int(step or 1))
        if number and step is None and isinstance(current, int):
            return IntDistribution(min(low, current), max(high, current), log=space.log)
        if len(grid) > _MAX_LISTED:
            raise ValueError(f"search_space from {low} to {high}: it does not hold the current value {current!r}")
        return CategoricalDistribution([current, *grid])
    if not number:
        raise ValueError(f"search_space from {low} to {high}: the current value {current!r} is no number")
    if step is None:
        return FloatDistribution(float(min(low, current)), float(max(high, current)), log=space.log)
    found = FloatDistribution(float(low), float(high), step=float(step))
    if found._contains(float(current)):
        return found
    return CategoricalDistribution([current, *_steps(found)])


def choices(dist: BaseDistribution) -> list[Any] | None:
    """All values of a finite distribution, or `None`."""
    if isinstance(dist, CategoricalDistribution):
        return list(dist.choices)
    if isinstance(dist, IntDistribution) and not dist.log:
        values = range(dist.low, dist.high + 1, dist.step)
        return list(values) if len(values) <= _MAX_LISTED else None
    if isinstance(dist, FloatDistribution) and dist.step is not None:
        return _steps(dist)
    return None


def _steps(dist: FloatDistribution) -> list[Any]:
    assert dist.step is not None
    return [dist.low + k * dist.step for k in range(round((dist.high - dist.low) / dist.step) + 1)]


def suggest(trial: optuna.Trial, name: str, dist: BaseDistribution) -> Any:
    """The trial's value of a distribution: planned, or the sampler's."""
    if isinstance(dist, CategoricalDistribution):
        return trial.suggest_categorical(name, dist.choices)
    if isinstance(dist, IntDistribution):
        return trial.suggest_int(name, dist.low, dist.high, step=dist.step, log=dist.log)
    assert isinstance(dist, FloatDistribution)
    return trial.suggest_float(name, dist.low, dist.high, step=dist.step, log=dist.log)


class TunedSpace:
    """The tuned paths of a config with their current values and their distributions.

    Args:
        config: the config as the user wrote it, validated.
        spaces: search spaces by path.

    Raises:
        ValueError: for a path that there is not and a space that does not fit the current value.
    """

    def __init__(self, config: BaseModel, spaces: Mapping[str, SearchSpace]) -> None:
        self.current: Values = {}
        self.distributions: dict[str, BaseDistribution] = {}
        for path, space in spaces.items():
            if space.is_prompt:
                continue
            current = value_at(config, path)
            try:
                self.distributions[path] = distribution(space, current)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            self.current[path] = current
        if not self.current:
            raise ValueError("nothing to tune: name fields in the LLM's optimizable_params")

    @property
    def size(self) -> int | None:
        """How many configurations there are, or `None` if a range is continuous."""
        size = 1
        for dist in self.distributions.values():
            values = choices(dist)
            if values is None:
                return None
            size *= len(values)
        return size

    def plan(self, sampler: Literal["qmc", "random", "grid"], n_trials: int, seed: int) -> list[Values]:
        """The configurations to try, in order: the current one first, then those of Optuna's sampler, none twice.

        The sampler works on the positions of the values, so that words are as evenly spread as numbers. The plan
        depends on nothing but its arguments, and a longer plan begins with the shorter one.
        """
        listed = {path: choices(dist) for path, dist in self.distributions.items()}
        positions: dict[str, BaseDistribution] = {
            path: self.distributions[path] if values is None else IntDistribution(0, len(values) - 1)
            for path, values in listed.items()
        }
        if self.size is not None and (sampler == "grid" or n_trials >= self.size):
            if self.size > _LARGEST_PLAN:
                raise ValueError(f"sampler: a grid of {self.size} configurations is too large; use qmc")
            sampler = "grid"
        elif sampler == "grid":
            endless = [path for path, values in listed.items() if values is None]
            raise ValueError(f"sampler='grid' needs a step for {', '.join(endless)}")
        study = optuna.create_study(sampler=planning_sampler(sampler, listed, seed))
        start = {
            path: value if (values := listed[path]) is None else values.index(value)
            for path, value in self.current.items()
        }
        # Told first, it shows QMC what the space is.
        study.add_trial(optuna.create_trial(params=start, distributions=positions, value=0.0))
        plan = [self.current]
        wanted = n_trials if self.size is None else min(n_trials, self.size)

        def note(trial: optuna.Trial) -> float:
            drawn = {path: suggest(trial, path, dist) for path, dist in positions.items()}
            found = {path: drawn[path] if (known := listed[path]) is None else known[drawn[path]] for path in drawn}
            if found not in plan:
                plan.append(found)
            if len(plan) == wanted:
                study.stop()
            return 0.0

        if wanted > 1:
            # A sampler may draw the same positions again; a finite space may need many draws for its last ones.
            study.optimize(note, n_trials=100 * wanted + 10 * (self.size or 0))
        return plan


def short_names(paths: list[str]) -> dict[str, str]:
    """The shortest ends of paths that still tell them apart: `llms.dynamo.prefix_osl` is `prefix_osl`."""
    names: dict[str, str] = {}
    for path in paths:
        parts = re.split(r"\.", path)
        for n in range(1, len(parts) + 1):
            name = ".".join(parts[-n:])
            if sum(other == name or other.endswith(f".{name}") for other in paths) == 1 or n == len(parts):
                names[path] = name
                break
    return names
