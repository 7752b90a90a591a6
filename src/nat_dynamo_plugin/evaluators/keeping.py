"""Make `nat eval` lose nothing: a journal while it runs, one failed question is one, and a run that was cut goes on.

NAT 1.9 writes its files when all is over, stops at the first workflow that raises and drops that question's steps, and
its `--skip_completed_entries` wants a file that is not there after a kill. It has no hook for a failed question, nor
one before its output folder is emptied. So public methods of its `EvaluationRun` are wrapped, which still do the work:
they get fewer questions (the rest is in the journal) and a session whose workflow never raises.
"""

from __future__ import annotations

import copy
import inspect
import logging
import shutil
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.evaluators.answered import EVALUATION, AnsweredConfig
from nat_dynamo_plugin.evaluators.failures import count, item_failure, told
from nat_dynamo_plugin.evaluators.keeper import Keeper
from nat_dynamo_plugin.evaluators.metric import DynamoMetricConfig
from nat_dynamo_plugin.evaluators.sessions import NeverRaises
from nat_dynamo_plugin.nat.journal import JOURNAL, Entries, Journal, JournalBusy, digest, read, set_aside

logger = logging.getLogger(__name__)

_WRAPPED = {
    "run_and_evaluate": ("self",),
    "cleanup_output_directory": ("self",),
    "run_workflow_local": ("self", "session_manager", "http_connection"),
    "run_evaluators": ("self", "evaluators"),
}
_keepers: WeakKeyDictionary[Any, Keeper] = WeakKeyDictionary()


def install() -> None:
    """Wrap NAT's `EvaluationRun` if it is loaded, once. Another NAT than 1.9 is left as it is, with a warning."""
    module = sys.modules.get(EVALUATION)
    run = getattr(module, "EvaluationRun", None)
    if run is None or getattr(run, "_loses_nothing", False):
        return
    for name, parameters in _WRAPPED.items():
        method = getattr(run, name, None)
        if method is None or not set(parameters) <= set(inspect.signature(method).parameters):
            logger.warning("No journal is kept of evaluations: EvaluationRun.%s is not as in NAT 1.9", name)
            return
    wrappers: dict[str, Callable[[Any], Any]] = {
        "run_and_evaluate": _closing,
        "cleanup_output_directory": _sparing,
        "run_workflow_local": _keeping,
        "run_evaluators": _excluding,
    }
    for name, wrapper in wrappers.items():
        setattr(run, name, wrapper(getattr(run, name)))
    run._loses_nothing = True


def settings_of(run: Any) -> AnsweredConfig | None:
    """How an evaluation wants its journal kept, or `None` for not at all.

    A config that came as an object and not from a file is a part of something larger (an optimizer's trial), which does
    its own bookkeeping: there only an evaluator of ours that asks for it starts one.
    """
    config = run.effective_config
    asked = next((one for one in config.eval.evaluators.values() if isinstance(one, AnsweredConfig)), None)
    if asked is None:
        ours = any(isinstance(llm, DynamoModelConfig) for llm in config.llms.values())
        asked = AnsweredConfig() if ours and isinstance(run.config.config_file, Path) else None
    return asked if asked is not None and asked.journal and run.config.write_output else None


def fingerprint(run: Any) -> str:
    """A digest of all that decides what a question is answered with: models, tools, workflow; not of the evaluators."""
    config = run.effective_config.model_dump(mode="json", exclude={"eval", "general", "optimizer"}, fallback=str)
    return digest([config, run.config.result_json_path])


def _closing(original: Any) -> Any:
    @wraps(original)
    async def run_and_evaluate(run: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await original(run, *args, **kwargs)
        finally:
            keeper = _keepers.pop(run, None)
            if keeper is not None:
                keeper.close()

    return run_and_evaluate


def _sparing(original: Any) -> Any:
    @wraps(original)
    def cleanup_output_directory(run: Any) -> None:
        output = run.eval_config.general.output
        settings = settings_of(run)
        if settings is not None and output.cleanup and (output.dir / JOURNAL).is_file():
            # Whether the run goes on with it is seen when the questions are known.
            _empty_but_for_journals(output.dir)
        else:
            original(run)

    return cleanup_output_directory


def _empty_but_for_journals(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == JOURNAL or path.match("journal-*.jsonl"):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _goes_on(run: Any, settings: AnsweredConfig, before: Entries) -> bool:
    """Whether a run takes the answers of the journal that is there."""
    if settings.resume is False or not before.answered:
        return False
    if settings.resume is True:
        return True
    return before.is_open and before.fingerprint == fingerprint(run)


def _opened(run: Any, settings: AnsweredConfig) -> Keeper | None:
    """The keeper of a run's journal, with what an earlier run left; `None` if it can not be written."""
    path = run.eval_config.general.output_dir / JOURNAL
    try:
        journal = Journal(path)
        before = read(path)
        goes_on = _goes_on(run, settings, before)
        if not goes_on and settings.resume == "auto" and before.is_open:
            journal.close()
            logger.warning(
                "The run before in %s was not finished, but it asked other models or another workflow: its journal is "
                "kept as %s, and all questions are asked (with `resume: true` of a `dynamo_answered` evaluator its "
                "answers are taken)",
                path.parent,
                set_aside(path).name,
            )
            journal = Journal(path)
    except (OSError, JournalBusy) as error:
        logger.warning("No journal is kept of this evaluation: %s", error)
        return None
    journal.begin(fingerprint(run), len(run.eval_input.eval_input_items), keep=goes_on)
    return Keeper(journal, before.answered if goes_on else {})


def _keeping(original: Any) -> Any:
    @wraps(original)
    async def run_workflow_local(run: Any, session_manager: Any, http_connection: Any = None) -> None:
        settings = settings_of(run)
        if settings is None:
            await original(run, session_manager, http_connection)
            return
        keeper = _opened(run, settings)
        everything = run.eval_input
        todo = everything.eval_input_items
        if keeper is not None:
            _keepers[run] = keeper
            todo = [item for item in todo if not keeper.restore(item, run)]
            if len(todo) < len(everything.eval_input_items):
                logger.warning(
                    "Going on with %s: %d of %d questions are answered there, %d are asked",
                    keeper.journal.path,
                    len(everything.eval_input_items) - len(todo),
                    len(everything.eval_input_items),
                    len(todo),
                )
            run.callback_manager.register(keeper)
        try:
            run.eval_input = everything.model_copy(update={"eval_input_items": todo})
            await original(run, NeverRaises(session_manager, keeper), http_connection)
        finally:
            run.eval_input = everything
        failures = count(item_failure(item) for item in everything.eval_input_items)
        if failures:
            logger.warning(
                "%s. They are in no average; the same command again asks only them",
                told(failures, len(everything.eval_input_items)),
            )

    return run_workflow_local


def _excluding(original: Any) -> Any:
    @wraps(original)
    async def run_evaluators(run: Any, evaluators: dict[str, Any]) -> None:
        failed = {}
        if settings_of(run) is not None:
            found = {str(item.id): item_failure(item) for item in run.eval_input.eval_input_items}
            failed = {key: failure for key, failure in found.items() if failure is not None}
        if failed:
            evaluators = {name: _without(one, failed) for name, one in evaluators.items()}
        await original(run, evaluators)

    return run_evaluators


def _without(evaluator: Any, failed: dict[str, Any]) -> Any:
    """The evaluator, given only the questions that were answered. Ours count the others themselves."""
    if evaluator is None or isinstance(evaluator.config, DynamoMetricConfig | AnsweredConfig):
        return evaluator
    from nat_dynamo_plugin.evaluators.excluded import excluding

    made = copy.copy(evaluator)
    for lane in ("evaluate_fn", "evaluate_atif_fn"):
        function = getattr(evaluator, lane, None)
        if function is not None:
            setattr(made, lane, excluding(function, failed))
    return made
