"""LocalDynamo: starts an embedded Dynamo, waits until it serves, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from nat_dynamo_plugin.admission.capacity import count_workers
from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.local.answers import AnswerBook, load_answers
from nat_dynamo_plugin.local.engines import engine_of
from nat_dynamo_plugin.local.engines.engine import Engine, progress
from nat_dynamo_plugin.local.errors import LocalDynamoError
from nat_dynamo_plugin.local.instance import POLL_S, Instance
from nat_dynamo_plugin.local.recorded import Recorded, load_recording

logger = logging.getLogger(__name__)

DEFAULT_MODEL_NAME = "nat-dynamo-local"

_NOT_RUNNING = "the embedded Dynamo is not running"


class LocalDynamo:
    """One embedded Dynamo: frontend, router and workers, on loopback only.

    Use it as an async context manager; several may run at once, in one or many processes::

        async with LocalDynamo(LocalDynamoConfig(workers=4)) as dynamo:
            client = openai.AsyncOpenAI(base_url=dynamo.base_url, api_key="unused")

    Every request needs `max_tokens` where the engines are simulated: they answer 400 without.
    It holds nothing of the event loop while it runs, so another loop or thread may end it.
    """

    def __init__(self, config: LocalDynamoConfig, *, model_name: str = DEFAULT_MODEL_NAME) -> None:
        """Keep the settings; nothing is started.

        Args:
            config: the `local:` block.
            model_name: the name under which the frontend serves the model.
        """
        self.config = config
        self.model_name = model_name
        self._book = AnswerBook()
        self.recorded: Recorded | None = None
        """The recording that it plays (`config.answers`), once it has started."""
        self._engine = engine_of(config, model_name)
        self._instance = Instance(config)  # the last one; here one that never runs
        self._instance.ended = True

    # what a running instance offers

    @property
    def frontend_url(self) -> str:
        """The frontend's root, e.g. `http://127.0.0.1:40123` (also serves /health and /metrics)."""
        if self._instance.port is None:
            raise LocalDynamoError(_NOT_RUNNING)
        return f"http://127.0.0.1:{self._instance.port}"

    @property
    def base_url(self) -> str:
        """What OpenAI clients call base URL: `frontend_url` and `/v1`."""
        return f"{self.frontend_url}/v1"

    @property
    def work_dir(self) -> Path:
        """The instance's own temporary directory; gone after a good end."""
        if self._instance.work_dir is None:
            raise LocalDynamoError(_NOT_RUNNING)
        return self._instance.work_dir

    @property
    def log_dir(self) -> Path:
        """Where its processes log; gone after a good end, unless `config.log_dir` names another place."""
        if self._instance.log_dir is None:
            raise LocalDynamoError(_NOT_RUNNING)
        return self._instance.log_dir

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name: `supervisor`, `frontend`, and `mocker`, or `worker-0` and so on with vLLM."""
        return dict(self._instance.pids)

    @property
    def answer_keys(self) -> frozenset[str]:
        """Keys of the scripted answers that the workers know."""
        return self._book.keys

    def script(self, answer_key: Callable[[], str | None]) -> Dialect:
        """How a call asks this instance, which is running, for a scripted answer.

        Args:
            answer_key: names the call's answer, from its context, or gives `None`.
        """

        def known_key() -> str | None:
            key = answer_key()
            if key is not None:
                self.check_answer_key(key)  # Dynamo would answer an unknown key with random tokens
            return key

        return self._engine.script(known_key, self._book)

    def check_answer_key(self, key: str) -> None:
        """Refuse a key that no scripted answer has; the workers would answer it with random tokens.

        Raises:
            ScriptedAnswerError: names the nearest key.
        """
        self._book.check(key)

    def check_alive(self) -> None:
        """Fail if a process of the instance has died.

        Raises:
            LocalDynamoError: names the process and quotes its log.
        """
        self._instance.check_alive()

    def logs(self) -> dict[str, str]:
        """The text of each process's log so far, by process name; empty once they are removed."""
        return self._instance.logs()

    async def metrics(self) -> str:
        """The frontend's metrics in Prometheus text format.

        Raises:
            LocalDynamoError: not running.
            httpx.HTTPError: the frontend does not answer.
        """
        async with _http_client() as client:
            response = await client.get(f"{self.frontend_url}/metrics")
            response.raise_for_status()
            return response.text

    # start and stop

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything and return when all workers serve.

        That takes about a second, and a few more the first time; with vLLM about a minute.
        It may be cancelled at any point, and leaves nothing then.

        Raises:
            LocalDynamoError: Dynamo is not installed, a file cannot be written, a process died, or the time is up.
            ScriptedAnswerError: the scripted answers cannot be used.
        """
        if not self._instance.ended:
            raise LocalDynamoError("this embedded Dynamo is running already; make another LocalDynamo")
        engine = self._engine = engine_of(self.config, self.model_name)
        instance = self._instance = Instance(self.config)
        try:
            # A thread has no effect but on the tokenizer's cache, so it may outlive a start that is cancelled.
            self._book = await asyncio.to_thread(self._prepare, engine)
            with instance.launched(engine):
                await self._wait_until_ready(engine)
        except LocalDynamoError:
            await instance.end(keep=True)
            raise
        except BaseException:
            await instance.end(keep=False)
            raise

    async def stop(self) -> None:
        """Stop all processes (some tenths of a second) and remove the work directory; harmless if not running.

        The work directory is kept if one of Dynamo's processes had failed.
        """
        failed = False
        if self._instance.runs:
            try:
                self._instance.check_alive()
            except LocalDynamoError as error:
                logger.error("%s", error)
                failed = True
        await self._instance.end(keep=failed)

    def _prepare(self, engine: Engine) -> AnswerBook:
        """What takes long: a look at what is installed, the scripted answers, and what the engine makes of them."""
        engine.check_installed()
        config = self.config
        if config.answers is not None:
            self.recorded = load_recording(config.answers, config.tool_call_parser)
            book = self.recorded.book
        elif config.scripted_answers is not None:
            book = load_answers(config.scripted_answers)
            book.check_parser(config.tool_call_parser)
        else:
            book = AnswerBook()
        engine.prepare(book)
        return book

    async def _wait_until_ready(self, engine: Engine) -> None:
        started = time.monotonic()
        missing = told = "the frontend does not answer yet"
        async with _http_client() as client, _unlogged():
            while missing:
                self._check_start(started, missing)
                with contextlib.suppress(httpx.TransportError):
                    missing = await self._what_is_missing(client)
                if missing != told and engine.starts_slowly:
                    told = missing
                    progress.info("%s: %s (%.0f s)", engine.name, told or "all are ready", time.monotonic() - started)
                if missing:
                    await asyncio.sleep(POLL_S)
            warming = asyncio.ensure_future(engine.warm_up(client, self.frontend_url))
            try:
                while not warming.done():
                    self._check_start(started, "the workers have not given their first answers")
                    await asyncio.wait((warming,), timeout=POLL_S)
                warming.result()
            except (httpx.HTTPError, ValueError) as error:
                self._instance.failure = f"a worker gave no first answer: {error}"
                raise LocalDynamoError(self._instance.describe_failure()) from error
            finally:
                warming.cancel()

    def _check_start(self, started: float, missing: str) -> None:
        """Fail if a process has died or the time is up."""
        self._instance.check_alive()
        if time.monotonic() >= started + self.config.startup_timeout_s:
            self._instance.failure = (
                f"not ready after startup_timeout_s = {self.config.startup_timeout_s:g} s: {missing}"
            )
            raise LocalDynamoError(self._instance.describe_failure())

    async def _what_is_missing(self, client: httpx.AsyncClient) -> str:
        """Empty when the frontend serves the model and knows all workers."""
        models = await client.get(f"{self.base_url}/models")
        if models.status_code != 200 or not models.json().get("data"):
            return "no model is registered yet"
        health = await client.get(f"{self.frontend_url}/health")
        ready = count_workers(health.json())
        if ready < self.config.workers:
            return f"{ready} of {self.config.workers} workers are ready"
        return ""


def _http_client() -> httpx.AsyncClient:
    # Plain HTTP on loopback: no proxy from the environment, and no certificates to load.
    return httpx.AsyncClient(trust_env=False, verify=False, timeout=5.0)


_looking: ContextVar[bool] = ContextVar("dynamo_looking", default=False)


class _NotLooking(logging.Filter):
    """Keeps httpx's line for each request out of the log while we look whether Dynamo serves, ten times a second."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _looking.get()


_not_looking = _NotLooking()


@contextlib.asynccontextmanager
async def _unlogged() -> AsyncIterator[None]:
    logging.getLogger("httpx").addFilter(_not_looking)  # the same one counts once
    token = _looking.set(True)
    try:
        yield
    finally:
        _looking.reset(token)
