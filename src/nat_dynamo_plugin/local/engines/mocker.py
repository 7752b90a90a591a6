"""Dynamo's mocker: engine times are simulated, cache and scheduling are a model's of a real engine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.dialects.scripted import Replay
from nat_dynamo_plugin.local.answers import AnswerBook
from nat_dynamo_plugin.local.engines.engine import Command, Engine, kept_tokenizer
from nat_dynamo_plugin.local.errors import check_installed
from nat_dynamo_plugin.local.model import (
    SIMULATED,
    VOCABULARY_SIZE,
    answer_opening,
    eos_token_id,
    load_tokenizer,
    write_model_folder,
)

_WORKER = Path(__file__).with_name("mocker_worker.py")


def worker_command(config: LocalDynamoConfig, model_folder: Path, model_name: str, trace: Path | None) -> list[str]:
    """The simulated workers' command line."""
    argv = [sys.executable, "-P", str(_WORKER)]
    if config.tool_call_parser is not None:
        argv += ["--tool-call-parser", config.tool_call_parser]
    argv += ["--model-path", str(model_folder), "--model-name", model_name, "--num-workers", str(config.workers)]
    argv += ["--block-size", str(config.block_size), "--num-gpu-blocks-override", str(config.kv_blocks)]
    argv += ["--max-model-len", str(config.context_length), "--max-num-seqs", str(config.max_num_seqs)]
    argv += ["--max-num-batched-tokens", str(config.max_num_batched_tokens), "--speedup-ratio", str(config.speedup)]
    if trace is not None:
        argv += ["--response-replay-trace-path", str(trace)]
        if config.migration_limit:
            argv += ["--resume-answers", str(trace)]
    return argv + config.worker_args


class Mocker(Engine):
    """All workers in one process. A scripted answer is a row of the trace that it replays, named by an annotation."""

    name: ClassVar = "mocker"

    _tokenizer_json: Path
    _trace: str | None = None

    def check_installed(self) -> None:
        """See `errors.check_installed`."""
        check_installed("dynamo.mocker")

    def prepare(self, book: AnswerBook) -> None:
        """Make the tokenizer, and the answers as the workers read them."""
        self._tokenizer_json = kept_tokenizer(VOCABULARY_SIZE)
        if not book.answers:
            return
        tokenizer = load_tokenizer(self._tokenizer_json)
        opening = answer_opening(tokenizer) if self.config.migration_limit else None
        self._trace = "".join(book.replay_trace(tokenizer, eos_token_id(), opening=opening))

    def write(self, work_dir: Path) -> Sequence[Command]:
        """Write model and trace; one command for all workers."""
        folder, trace = work_dir / "model", None
        write_model_folder(folder, self._tokenizer_json, self.config.context_length, SIMULATED)
        if self._trace is not None:
            trace = work_dir / "answers.jsonl"
            trace.write_text(self._trace)
        return [Command("mocker", worker_command(self.config, folder, self.model_name, trace))]

    def script(self, answer_key: Callable[[], str | None], book: AnswerBook) -> Dialect:
        """By the key; the workers know the answers."""
        return Replay(answer_key)
