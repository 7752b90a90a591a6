"""Which of the tuned values made the difference."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.trial import TrialState

from nat_dynamo_plugin.sweep.results import trial_rows
from nat_dynamo_plugin.sweep.study import INDEX, Queue
from nat_dynamo_plugin.sweep.verdict import Objective

logger = logging.getLogger(__name__)


def importance(queue: Queue, objectives: Sequence[Objective]) -> dict[str, float]:
    """How much of the difference between trials each tuned value explains, 0 to 1: Optuna's fANOVA.

    For the only objective, or the weighted gain of several. Empty with few trials.
    """
    done = queue.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < 4:
        return {}
    several = len(queue.study.directions) > 1
    weighted = {index: row.gain for index, row in enumerate(trial_rows(queue, objectives))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = optuna.importance.get_param_importances(
                queue.study,
                evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
                target=(lambda trial: -(weighted.get(trial.user_attrs[INDEX]) or 0.0)) if several else None,
            )
        except (ValueError, RuntimeError) as error:
            logger.info("No importance could be computed: %s", error)
            return {}
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}
