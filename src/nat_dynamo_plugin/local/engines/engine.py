"""What the embedded Dynamo asks of an engine."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import httpx

from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.local.answers import AnswerBook
from nat_dynamo_plugin.local.errors import LocalDynamoError
from nat_dynamo_plugin.local.model import tokenizer_file

progress = logging.getLogger("nat_dynamo_plugin.local.progress")
"""Where it says how far a start is that takes long."""


@dataclass(frozen=True, slots=True)
class Command:
    """A process to start.

    Attributes:
        name: of the process, also of its log.
        argv: its command line.
        env: its variables beside those that all processes of an instance have.
    """

    name: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


class Engine(ABC):
    """The workers of one start: what they need, how they are started, and how they are made to say something.

    Its methods are called in the order in which they stand here.

    Args:
        config: the `local:` block.
        model_name: the name under which the frontend serves the model.
    """

    name: ClassVar[str]
    """What `local.engine` calls it."""

    starts_slowly: ClassVar[bool] = False
    """Whether a start takes so long that it is worth telling how far it is."""

    def __init__(self, config: LocalDynamoConfig, model_name: str) -> None:
        self.config = config
        self.model_name = model_name

    @abstractmethod
    def check_installed(self) -> None:
        """Refuse to go on without what it needs.

        Raises:
            LocalDynamoError: names what is missing and how to install it.
        """

    @abstractmethod
    def prepare(self, book: AnswerBook) -> None:
        """Do what takes long and needs no folder. Runs in a thread that may outlive a start which is cancelled.

        Args:
            book: the scripted answers; empty: none.

        Raises:
            LocalDynamoError: the tokenizer can be kept nowhere.
        """

    @abstractmethod
    def write(self, work_dir: Path) -> Sequence[Command]:
        """Write the files that the workers read into the instance's folder.

        Returns:
            What starts the workers.
        """

    async def warm_up(self, client: httpx.AsyncClient, frontend_url: str) -> None:  # noqa: B027 - most need none
        """Make every worker answer once, if its first answers take longer than others.

        Raises:
            httpx.HTTPError: one did not answer.
        """

    @abstractmethod
    def script(self, answer_key: Callable[[], str | None], book: AnswerBook) -> Dialect:
        """How a call asks for its scripted answer.

        Args:
            answer_key: names the call's answer, from its context; `None`: it has none.
            book: the answers.
        """


def kept_tokenizer(vocabulary: int) -> Path:
    """`tokenizer_file`, with an error that says what to set.

    Raises:
        LocalDynamoError: it can be kept nowhere.
    """
    try:
        return tokenizer_file(vocabulary)
    except OSError as error:
        raise LocalDynamoError(
            f"the embedded Dynamo's tokenizer can be kept nowhere: {error}; let XDG_CACHE_HOME or TMPDIR name a "
            "folder that can be written"
        ) from error
