"""What keeps the journal of one evaluation: an eval callback of NAT's, told of each question as it ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from nat_dynamo_plugin.evaluators.failures import item_failure
from nat_dynamo_plugin.files import clean_run
from nat_dynamo_plugin.nat.journal import Answered, Journal, digest, survives_json
from nat_dynamo_plugin.secrets import redacted

logger = logging.getLogger(__name__)


class Keeper:
    """Writes each question to the journal, and gives back those that are there.

    Args:
        journal: open, and begun.
        answered: of an earlier run, by id; not to be asked again.
    """

    def __init__(self, journal: Journal, answered: Mapping[str, Answered]) -> None:
        self.journal = journal
        self._answered = answered
        self._failed = False

    def restore(self, item: Any, run: Any) -> bool:
        """Give a question its answer and steps out of the journal, and tell NAT of it; whether there is one."""
        known = self._answered.get(str(item.id))
        if known is None or known.asked != digest(item.input_obj):
            return False
        steps = run.intermediate_step_adapter.validate_intermediate_steps(known.trajectory)
        if len(steps) < len(known.trajectory):
            return False  # written by another version of NAT
        item.output_obj = known.output
        item.trajectory = steps
        # What NAT does with a question that its workflow has just answered. The first counts tokens, and is not public.
        compute = getattr(run, "_compute_usage_stats", None)
        if compute is not None:
            compute(item)
        run.callback_manager.on_prediction(item=item, output=item.output_obj)
        return True

    def on_call(self, asked: Any, record: dict[str, Any]) -> None:
        """Note an LLM call."""
        self.journal.call(digest(asked), record)

    def on_prediction(self, *, item: Any, output: Any) -> None:
        """Note a question that has ended, failed or not."""
        failure = item_failure(item)
        self._failed |= failure is not None
        self.journal.question(
            Answered(
                id=str(item.id),
                asked=digest(item.input_obj),
                output=output,
                trajectory=list(item.trajectory),
                failure=failure.kind if failure else None,
                error=failure.error if failure else None,
                restorable=survives_json(output),
            )
        )

    def on_dataset_loaded(self, **_: Any) -> None:
        """Of no interest here; NAT's protocol has it."""

    def on_eval_complete(self, result: Any) -> None:
        """Note that all files are written, if they are: NAT's own callback comes before this one, and only logs."""
        try:
            clean_run(result.output_dir)
        except OSError as error:
            logger.warning("The files in %s may be read by others, or hold secrets: %s", result.output_dir, error)
        written = result.output_dir / "workflow_output.json"
        text = redacted(result.workflow_output_json or "")
        size = len(text.encode("utf-8", "replace"))
        if written.is_file() and written.stat().st_size == size:
            self.journal.finish()
            if not self._failed:
                self.journal.slim()

    def close(self) -> None:
        """Let others have the journal."""
        self.journal.close()
