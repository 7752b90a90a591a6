"""The study in its storage: a queue of trials that several processes share and that survives any of them.

Every trial is put into the queue when the study is made, as an Optuna trial in state WAITING, and carries its index:
its place in the plan. A process takes the next waiting trial, which Optuna makes RUNNING. A trial whose process died is
failed in Optuna and put into the queue again under the same index with what was measured of it so far. So an index is
finished at most once, whoever was killed when, and the number of trials is that of the queue.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage, RetryFailedTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from nat_dynamo_plugin.files import OWNER_ONLY, make_private
from nat_dynamo_plugin.processes import is_dead, this_process
from nat_dynamo_plugin.sweep.space import suggest

logger = logging.getLogger(__name__)

INDEX = "index"
OWNER = "owner"
PROBLEM = "problem"
_FINGERPRINT = "fingerprint"
_FILL_S = 30.0

POLL_S = 1.0
"""Seconds between two looks at a queue whose last trials are with another process."""

SamplerOf = Callable[[int], optuna.samplers.BaseSampler]


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Signs of life are given by `Storage`, as `Study.optimize` would give them.
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        yield


class Storage:
    """Optuna's storage, with signs of life from the trials that this process runs.

    SQLite has no row locks, so what one process at a time must do is done under a lock file beside the database.
    """

    def __init__(self, url: str, *, lost_after_s: float = 120.0) -> None:
        parsed = make_url(url)
        self.shown = parsed.render_as_string(hide_password=True)
        self._lock: Any = contextlib.nullcontext()
        self.one_machine = False
        """Whether only processes of this machine can use it, one at a time."""
        engine: dict[str, Any] = {}
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            from filelock import FileLock

            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            # Questions and errors may be in it. SQLite gives its journal the same mode.
            make_private(Path(parsed.database))
            self._lock = FileLock(f"{parsed.database}.lock", mode=OWNER_ONLY)
            self.one_machine = True
            engine = {"connect_args": {"timeout": 60}}
        with _quiet_optuna(), self._lock:
            self.optuna = RDBStorage(
                url,
                engine_kwargs=engine,
                heartbeat_interval=max(1, int(lost_after_s / 4)),
                grace_period=int(lost_after_s),
                failed_trial_callback=RetryFailedTrialCallback(),
            )
        self._held: set[int] = set()
        self._stop = threading.Event()
        self.lost_after_s = lost_after_s
        self._beat_s = lost_after_s / 4
        self._thread = threading.Thread(target=self._beat, name="dynamo-sweep-heartbeat", daemon=True)
        self._thread.start()

    def exclusively(self) -> Any:
        """A block that only one process is in, where the database can not see to that itself."""
        return self._lock

    def hold(self, trial_id: int) -> None:
        """Give signs of life for a trial."""
        self.optuna.record_heartbeat(trial_id)
        self._held.add(trial_id)

    def release(self, trial_id: int) -> None:
        """Stop giving signs of life for a trial."""
        self._held.discard(trial_id)

    def _beat(self) -> None:
        while not self._stop.wait(self._beat_s):
            for trial_id in tuple(self._held):
                try:
                    self.optuna.record_heartbeat(trial_id)
                except Exception:
                    logger.warning("No sign of life could be given for a trial", exc_info=True)

    def close(self) -> None:
        """Stop the signs of life and close the connections."""
        self._stop.set()
        self._thread.join(5)
        self.optuna.remove_session()
        self.optuna.engine.dispose()


def _age_s(trial: FrozenTrial) -> float:
    # Optuna writes local time without a zone.
    return 0.0 if trial.datetime_start is None else (datetime.now() - trial.datetime_start).total_seconds()


@dataclass(slots=True)
class Planned:
    """A trial to be put into the queue: its values (empty: the sampler chooses) and what else is known of it."""

    values: Mapping[str, Any]
    attributes: dict[str, Any] = field(default_factory=dict)


class Queue:
    """One Optuna study whose trials are all planned beforehand.

    Args:
        storage: where it is kept.
        name: of the study.
        directions: Optuna's, one an objective.
        pruner: Optuna's.
        sampler_of: the sampler for a trial whose values are not planned, by its index.
        distributions: of the tuned values.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        directions: Sequence[str],
        distributions: Mapping[str, BaseDistribution],
        *,
        pruner: optuna.pruners.BasePruner | None = None,
        sampler_of: SamplerOf | None = None,
    ) -> None:
        self._storage = storage
        self._sampler_of = sampler_of
        self._distributions = dict(distributions)
        self._length: int | None = None
        with storage.exclusively():
            self._cached = optuna.storages.get_storage(storage.optuna)
            self.study = optuna.create_study(
                storage=self._cached,
                study_name=name,
                directions=list(directions),
                pruner=pruner or optuna.pruners.NopPruner(),
                load_if_exists=True,
            )

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.study_name

    def check_belongs(self, fingerprint: str) -> None:
        """Refuse a study that measures something else under the same name.

        Raises:
            ValueError: naming the study.
        """
        known = self.study.user_attrs.get(_FINGERPRINT)
        if known is None:
            self.study.set_user_attr(_FINGERPRINT, fingerprint)
        elif known != fingerprint:
            raise ValueError(
                f"study_name={self.name!r}: this study was made for another config, search space, metric or seed; use "
                "another study_name, or leave it out for one that follows the config"
            )

    def retry_failed(self) -> None:
        """Put the failed trials into the queue again, with what was measured of them: the cause may be gone."""
        with self._storage.exclusively():
            for trial in self.trials().values():
                if trial.state is TrialState.FAIL and self._is_first_to(f"retry trial {trial.number}"):
                    with _quiet_optuna():
                        RetryFailedTrialCallback()(self.study, trial)

    def fill(self, plan: Sequence[Planned], *, leave_rest: bool = False) -> None:
        """Put a plan into the queue, once, whoever comes first; a longer plan than before adds what is new.

        Args:
            plan: what is to be in the queue.
            leave_rest: whether this process is to leave alone, from now on, what a longer plan has put there.
        """
        self._length = len(plan) if leave_rest else None
        with self._storage.exclusively():
            if not self._is_first_to(f"filling, {len(plan)}"):
                deadline = time.monotonic() + _FILL_S
                while len(self.trials()) < len(plan) and time.monotonic() < deadline:
                    time.sleep(0.2)
            known = self.trials()
            for index, planned in enumerate(plan):
                if index not in known:
                    self.study.enqueue_trial(dict(planned.values), user_attrs={INDEX: index, **planned.attributes})

    def _is_first_to(self, do: str) -> bool:
        """Whether no other process does the same: asks the database, in which a study's name is unique."""
        if self._storage.one_machine:
            return True
        try:
            self._storage.optuna.create_new_study(self.study.directions[:1], f"{self.name} ({do})")
        except optuna.exceptions.DuplicatedStudyError:
            return False
        return True

    def take(self) -> optuna.Trial | None:
        """The next waiting trial, now this process's, with its values; `None` if there is none."""
        with self._storage.exclusively():
            self._give_back_lost()
            trials = sorted(self.trials().items())
            waiting = (one for one in trials if one[1].state is TrialState.WAITING and self._begin(one[1]))
            index, frozen = next(waiting, (None, None))
            if index is None or frozen is None:
                return None
            # Not `Study.ask`, which takes the first that was put in, be it one that is left alone. Loaded anew, the
            # study knows all results.
            study = optuna.load_study(
                study_name=self.name,
                storage=self._cached,
                sampler=None if self._sampler_of is None else self._sampler_of(index),
                pruner=self.study.pruner,
            )
            trial = optuna.Trial(study, frozen._trial_id)
            trial.set_user_attr(OWNER, this_process())
            if PROBLEM in trial.user_attrs:
                trial.set_user_attr(PROBLEM, None)
            self._storage.hold(trial._trial_id)
            for name, dist in self._distributions.items():
                suggest(trial, name, dist)
            return trial

    def _begin(self, trial: FrozenTrial) -> bool:
        """Make a waiting trial this process's; false if it is not waiting any more."""
        try:
            return self._storage.optuna.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    def tell(self, trial: optuna.Trial, values: Sequence[float]) -> None:
        """Finish a trial with its values."""
        self.study.tell(trial, list(values))
        self._storage.release(trial._trial_id)

    def prune(self, trial: optuna.Trial) -> None:
        """Finish a trial that was stopped as hopeless."""
        self.study.tell(trial, state=TrialState.PRUNED)
        self._storage.release(trial._trial_id)

    def fail(self, trial: optuna.Trial, problem: str) -> None:
        """Finish a trial that could not be measured, and say why."""
        trial.set_user_attr(PROBLEM, problem[:2000])
        self.study.tell(trial, state=TrialState.FAIL)
        self._storage.release(trial._trial_id)

    def give_back(self, trial: optuna.Trial) -> None:
        """Put a trial that is not finished into the queue again, with what was measured of it."""
        with self._storage.exclusively():
            self._requeue(trial._trial_id)
        self._storage.release(trial._trial_id)

    def _requeue(self, trial_id: int) -> None:
        storage = self._storage.optuna
        try:
            storage.set_trial_state_values(trial_id, state=TrialState.FAIL)
        except optuna.exceptions.UpdateFinishedTrialError:
            return  # another process was first, or it is finished
        with _quiet_optuna():
            RetryFailedTrialCallback()(self.study, storage.get_trial(trial_id))

    def _give_back_lost(self) -> None:
        with _quiet_optuna():
            optuna.storages.fail_stale_trials(self.study)
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = trial.user_attrs.get(OWNER)
            # A process may have died between taking a trial and putting its name on it.
            nameless = owner is None and (self._storage.one_machine or _age_s(trial) > self._storage.lost_after_s)
            if nameless or (owner is not None and is_dead(owner)):
                logger.info("Trial %s was left behind by a process that died", trial.user_attrs.get(INDEX))
                self._requeue(trial._trial_id)

    def trials(self) -> dict[int, FrozenTrial]:
        """The trials by index; of one that was begun several times, the last attempt."""
        found = {
            trial.user_attrs[INDEX]: trial
            for trial in self.study.get_trials(deepcopy=False)
            if INDEX in trial.user_attrs
        }
        return {index: trial for index, trial in found.items() if self._length is None or index < self._length}

    def snapshot(self) -> optuna.Study:
        """The trials in a study of its own, in memory, each index once: for what Optuna says about a study."""
        study = optuna.create_study(directions=self.study.directions, sampler=optuna.samplers.RandomSampler())
        study.add_trials([trial for _, trial in sorted(self.trials().items())])
        return study

    def get(self, index: int) -> FrozenTrial | None:
        """The trial of an index."""
        return self.trials().get(index)

    def busy(self) -> bool:
        """Whether any trial is waiting or running, in any process."""
        return any(not trial.state.is_finished() for trial in self.trials().values())
