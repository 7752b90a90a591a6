"""Optuna's samplers: those that plan all trials beforehand, and those that learn from results."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GridSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler


def planning_sampler(kind: str, listed: Mapping[str, list[Any] | None], seed: int) -> BaseSampler:
    """A sampler that does not look at results, over the positions of listed values.

    Args:
        kind: `qmc`, `random` or `grid`.
        listed: all values of each path, or `None` for a continuous range, which a grid does not take.
        seed: of the sampler.
    """
    if kind == "random":
        return RandomSampler(seed=seed)
    if kind == "grid":
        return GridSampler({path: list(range(len(values))) for path, values in listed.items() if values}, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return QMCSampler(scramble=True, seed=seed)


def learning_sampler(kind: str, seed: int) -> Callable[[int], BaseSampler] | None:
    """The sampler of a trial by its index, for kinds that learn from results (`tpe`, `nsga2`); else `None`."""

    def sampler(index: int) -> BaseSampler:
        # A seed for each index, so that whoever takes a trial, however often restarted, draws the same.
        own = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
        if kind == "nsga2":
            return NSGAIISampler(seed=own)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(seed=own, multivariate=True, constant_liar=True)

    return sampler if kind in ("tpe", "nsga2") else None
