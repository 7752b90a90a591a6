"""Which of the tuned values made the difference."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.trial import TrialState

from nat_dynamo_plugin.sweep.results import TrialRow
from nat_dynamo_plugin.sweep.study import INDEX, Queue

logger = logging.getLogger(__name__)


def importance(queue: Queue, rows: Sequence[TrialRow]) -> dict[str, float]:
    """How much of the difference between trials each tuned value explains, 0 to 1: Optuna's fANOVA.

    For the only objective, or the weighted gain of several. Empty with few trials.
    """
    study = queue.snapshot()
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < 4:
        return {}
    several = len(study.directions) > 1
    gains = {row.index: row.gain or 0.0 for row in rows}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = optuna.importance.get_param_importances(
                study,
                evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
                target=(lambda trial: -gains.get(trial.user_attrs[INDEX], 0.0)) if several else None,
            )
        except (ValueError, RuntimeError) as error:
            logger.info("No importance could be computed: %s", error)
            return {}
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}
