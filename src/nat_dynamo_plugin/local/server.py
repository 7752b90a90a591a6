"""LocalDynamo: starts an embedded Dynamo, waits until it serves, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx

from nat_dynamo_plugin.admission.capacity import count_workers
from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.local.answers import AnswerBook, load_answers
from nat_dynamo_plugin.local.model import eos_token_id, load_tokenizer, tokenizer_file, write_model_folder

logger = logging.getLogger(__name__)

DEFAULT_MODEL_NAME = "nat-dynamo-local"

INSTALL_HINT = (
    "install it with\n"
    '    pip install "nat-dynamo-plugin[local]"\n'
    "    pip install --no-deps ai-dynamo==1.6.0\n"
    "(--no-deps, because one of ai-dynamo's requirements cannot be built from the ordinary package index and is not "
    "needed here)"
)

MARKER_VARIABLE = "NAT_DYNAMO_LOCAL_DIR"
"""Environment variable that every process of an instance carries; its value is the instance's work directory."""

_POLL_S = 0.02
_GRACE_S = 0.5
_STOP_S = 5.0
_LOG_TAIL_LINES = 15
_HERE = Path(__file__).parent
# What a shell or a real deployment may have set must not reach an instance of our own.
_FOREIGN_VARIABLE = re.compile(r"(DYN|NATS|ETCD)_")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class LocalDynamoError(RuntimeError):
    """The embedded Dynamo cannot be started or has died; the message says why and where the logs are."""


class LocalDynamo:
    """One embedded Dynamo: frontend, router and simulated workers, on loopback only.

    Use it as an async context manager; several may run at once, in one or many processes::

        async with LocalDynamo(LocalDynamoConfig(workers=4)) as dynamo:
            client = openai.AsyncOpenAI(base_url=dynamo.base_url, api_key="unused")

    Every request needs `max_tokens`: the simulated engines answer 400 without.
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
        self._port: int | None = None
        self._work_dir: Path | None = None
        self._log_dir: Path | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._events = b""
        self._pids: dict[str, int] = {}
        self._failure: str | None = None

    # what a running instance offers

    @property
    def frontend_url(self) -> str:
        """The frontend's root, e.g. `http://127.0.0.1:40123` (also serves /health and /metrics)."""
        if self._port is None:
            raise LocalDynamoError("the embedded Dynamo is not running")
        return f"http://127.0.0.1:{self._port}"

    @property
    def base_url(self) -> str:
        """What OpenAI clients call base URL: `frontend_url` and `/v1`."""
        return f"{self.frontend_url}/v1"

    @property
    def work_dir(self) -> Path:
        """The instance's own temporary directory; gone after a good end."""
        if self._work_dir is None:
            raise LocalDynamoError("the embedded Dynamo is not running")
        return self._work_dir

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name: `supervisor`, `frontend`, `mocker`."""
        return dict(self._pids)

    @property
    def answer_keys(self) -> frozenset[str]:
        """Keys of the scripted answers that the workers know."""
        return self._book.keys

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
        if self._supervisor is None:
            raise LocalDynamoError("the embedded Dynamo is not running")
        self._read_events(self._supervisor)
        if self._failure is not None:
            raise LocalDynamoError(self._describe(self._failure))

    def logs(self) -> dict[str, str]:
        """The text of each process's log so far, by process name; empty once they are removed."""
        if self._log_dir is None or not self._log_dir.is_dir():
            return {}
        return {
            file.stem: _ANSI.sub("", file.read_text(encoding="utf-8", errors="replace"))
            for file in sorted(self._log_dir.glob("*.log"))
        }

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
        """Start everything and return when all workers serve (about a second; the first time a few more).

        Raises:
            LocalDynamoError: Dynamo is not installed, a process died, or the time is up.
            ScriptedAnswerError: the scripted answers cannot be used.
        """
        if self._supervisor is not None:
            raise LocalDynamoError("this embedded Dynamo is running already; make another LocalDynamo")
        _check_installed()
        # Work in threads has no effect but on the tokenizer's cache, so a start can be cancelled at any point.
        tokenizer_json = await asyncio.to_thread(tokenizer_file)
        self._book, trace = await asyncio.to_thread(self._load_answers, tokenizer_json)
        self._failure = None
        try:
            with self._launch(tokenizer_json, trace):
                await self._wait_until_ready()
        except LocalDynamoError:
            await self._stop(keep=True)
            raise
        except BaseException:
            await self._stop(keep=False)
            raise

    async def stop(self) -> None:
        """Stop all processes (some tenths of a second) and remove the work directory; harmless if not running.

        The work directory is kept if one of Dynamo's processes had failed.
        """
        if self._supervisor is not None:
            self._read_events(self._supervisor)
            if self._failure is not None:
                logger.error("%s", self._describe(self._failure))
        await self._stop(keep=self._failure is not None)

    async def _stop(self, *, keep: bool) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            self._forget()
            return
        self._hang_up(supervisor, keep=keep)
        deadline = time.monotonic() + _STOP_S
        try:
            while supervisor.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - a process, no event
                await asyncio.sleep(_POLL_S)
        finally:  # also when this wait is cancelled: nothing may be left then either
            with contextlib.suppress(subprocess.TimeoutExpired):
                supervisor.wait(max(0.0, deadline - time.monotonic()))
            if supervisor.poll() is None:
                self._kill_all(supervisor)
            _close(supervisor.stdout)
            if not keep and self._work_dir is not None:
                shutil.rmtree(self._work_dir, ignore_errors=True)  # in case the supervisor was killed
            self._forget()

    def _forget(self) -> None:
        self._port = None
        self._work_dir = None
        self._pids = {}
        self._events = b""

    @staticmethod
    def _hang_up(supervisor: subprocess.Popen[bytes], *, keep: bool) -> None:
        """Close the supervisor's stdin, which makes it stop everything; it may be gone already."""
        with contextlib.suppress(OSError):
            if supervisor.stdin is not None:
                # "stop" as well as closing it: a fork of this process may hold the pipe open.
                supervisor.stdin.write(b"keep\nstop\n" if keep else b"stop\n")
                supervisor.stdin.close()

    def _kill_all(self, supervisor: subprocess.Popen[bytes]) -> None:
        """The supervisor hangs: kill it. The kernel then kills its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(supervisor.pid, signal.SIGKILL)
        supervisor.wait()

    def _load_answers(self, tokenizer_json: Path) -> tuple[AnswerBook, str | None]:
        source = self.config.scripted_answers
        if source is None:
            return AnswerBook(), None
        book = load_answers(source)
        book.check_parser(self.config.tool_call_parser)
        return book, "".join(book.replay_trace(load_tokenizer(tokenizer_json), eos_token_id()))

    def _launch(self, tokenizer_json: Path, trace: str | None) -> socket.socket:
        """Write the files and start the supervisor. Returns what holds the HTTP port until the frontend has it."""
        config = self.config
        work_dir = self._work_dir = Path(tempfile.mkdtemp(prefix="nat-dynamo-"))
        held = socket.socket()
        try:
            # Bound but not listening: the kernel gives the port to nobody else, and the frontend, which sets
            # SO_REUSEADDR too, can still bind it and listen.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
            port = self._port = held.getsockname()[1]
            model_folder = work_dir / "model"
            write_model_folder(model_folder, tokenizer_json, config.context_length)
            trace_file = None
            if trace is not None:
                trace_file = work_dir / "answers.jsonl"
                trace_file.write_text(trace)
            self._log_dir = config.log_dir.absolute() / work_dir.name if config.log_dir else work_dir / "logs"
            self._log_dir.mkdir(parents=True, exist_ok=True)
            spec = {
                "work_dir": str(work_dir),
                "parent_pid": os.getpid(),
                "grace_s": _GRACE_S,
                "commands": [
                    {"name": name, "argv": argv, "env": env, "log": str(self._log_dir / f"{name}.log")}
                    for name, argv, env in (
                        ("frontend", frontend_command(config, port), request_trace_environment(config)),
                        ("mocker", worker_command(config, model_folder, self.model_name, trace_file), {}),
                    )
                ],
            }
            spec_file = work_dir / "spec.json"
            spec_file.write_text(json.dumps(spec, indent=1))
            with (self._log_dir / "supervisor.log").open("ab") as log:
                self._supervisor = subprocess.Popen(
                    [sys.executable, "-P", str(_HERE / "supervisor.py"), str(spec_file)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment(config, work_dir),
                    start_new_session=True,
                    bufsize=0,
                )
            assert self._supervisor.stdout is not None
            os.set_blocking(self._supervisor.stdout.fileno(), False)
            self._pids["supervisor"] = self._supervisor.pid
        except BaseException:
            held.close()
            if self._supervisor is None:
                shutil.rmtree(work_dir, ignore_errors=True)
            raise
        return held

    async def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.config.startup_timeout_s
        missing = "the frontend does not answer yet"
        async with _http_client() as client:
            while True:
                self.check_alive()
                with contextlib.suppress(httpx.TransportError):
                    missing = await self._what_is_missing(client)
                    if not missing:
                        return
                if time.monotonic() >= deadline:
                    self._failure = (
                        f"not ready after startup_timeout_s = {self.config.startup_timeout_s:g} s: {missing}"
                    )
                    raise LocalDynamoError(self._describe(self._failure))
                await asyncio.sleep(_POLL_S)

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

    def _read_events(self, supervisor: subprocess.Popen[bytes]) -> None:
        assert supervisor.stdout is not None
        gone = supervisor.poll() is not None
        with contextlib.suppress(BlockingIOError):
            while received := os.read(supervisor.stdout.fileno(), 65536):
                self._events += received
        *lines, self._events = self._events.split(b"\n")
        for line in lines:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "started":
                self._pids.update(event["pids"])
            elif event["event"] == "exited":
                self._failure = self._failure or f"the {event['name']} {_how_it_ended(event['returncode'])}"
            else:
                self._failure = self._failure or f"the supervisor failed: {event['reason']}"
        if gone:
            self._failure = self._failure or f"the supervisor {_how_it_ended(supervisor.returncode)}"

    def _describe(self, failure: str) -> str:
        parts = [f"the embedded Dynamo failed: {failure}"]
        logs = self.logs()
        for name, text in logs.items():
            tail = text.rstrip().splitlines()[-_LOG_TAIL_LINES:]
            if tail:
                parts.append(f"--- last lines of {name}.log")
                parts += tail
        if any("ModuleNotFoundError" in text for text in logs.values()):
            parts.append(f"Something that Dynamo needs is missing: {INSTALL_HINT}")
        parts.append(f"--- logs are kept in {self._log_dir}")
        return "\n".join(parts)


def frontend_command(config: LocalDynamoConfig, port: int) -> list[str]:
    """The frontend's command line."""
    argv = [sys.executable, "-P", "-m", "dynamo.frontend", "--http-host", "127.0.0.1", "--http-port", str(port)]
    argv += ["--router-mode", config.router_mode, "--migration-limit", str(config.migration_limit)]
    if config.session_affinity_ttl_s is not None:
        argv += ["--router-session-affinity-ttl-secs", str(config.session_affinity_ttl_s)]
        argv += ["--router-session-affinity-mode", config.session_affinity_mode]
    if config.queue_threshold is not None:
        argv += ["--router-queue-threshold", str(config.queue_threshold)]
    if config.track_output_blocks:
        argv += ["--router-track-output-blocks"]
    return argv + config.frontend_args


def worker_command(config: LocalDynamoConfig, model_folder: Path, model_name: str, trace: Path | None) -> list[str]:
    """The simulated workers' command line."""
    argv = [sys.executable, "-P", str(_HERE / "worker.py")]
    if config.tool_call_parser is not None:
        argv += ["--tool-call-parser", config.tool_call_parser]
    argv += ["--model-path", str(model_folder), "--model-name", model_name, "--num-workers", str(config.workers)]
    argv += ["--block-size", str(config.block_size), "--num-gpu-blocks-override", str(config.kv_blocks)]
    argv += ["--max-model-len", str(config.context_length), "--max-num-seqs", str(config.max_num_seqs)]
    argv += ["--max-num-batched-tokens", str(config.max_num_batched_tokens), "--speedup-ratio", str(config.speedup)]
    if trace is not None:
        argv += ["--response-replay-trace-path", str(trace)]
    return argv + config.worker_args


def environment(config: LocalDynamoConfig, work_dir: Path) -> dict[str, str]:
    """The processes' environment: this process's own without anything that points to another Dynamo."""
    values = {name: value for name, value in os.environ.items() if not _FOREIGN_VARIABLE.match(name)}
    values |= {
        "DYN_DISCOVERY_BACKEND": "file",
        "DYN_FILE_KV": str(work_dir / "discovery"),
        "DYN_REQUEST_PLANE": "tcp",
        "DYN_EVENT_PLANE": "zmq",
        # Two kilobytes of log a request say nothing that helps; refusals and failures are logged above `info`.
        "DYN_LOG": "info,dynamo_llm::http::service=warn,dynamo_kv_router::scheduling=warn,"
        "dynamo_runtime::pipeline::network::ingress=warn",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        MARKER_VARIABLE: str(work_dir),
    }
    for name in ("HTTP", "TCP_RPC", "TCP_RESPONSE_STREAM", "EVENT_PLANE", "SYSTEM"):
        values[f"DYN_{name}_HOST"] = "127.0.0.1"
    return values | config.env


def request_trace_environment(config: LocalDynamoConfig) -> dict[str, str]:
    """What makes the frontend write `request_trace` (dynamo.request.trace.v1, one `request_end` record a line).

    Source: Dynamo 1.6, reference "Request traces".
    """
    if config.request_trace is None:
        return {}
    return {
        "DYN_REQUEST_TRACE": "1",
        "DYN_REQUEST_TRACE_SINKS": "file",
        "DYN_REQUEST_TRACE_FILE_FORMAT": "jsonl",
        "DYN_REQUEST_TRACE_FILE_PATH": str(config.request_trace.absolute()),
        "DYN_REQUEST_TRACE_FILE_FLUSH_INTERVAL_MS": "100",
        # Records over this many in flight are dropped.
        "DYN_REQUEST_TRACE_CAPACITY": "65536",
    }


def _check_installed() -> None:
    for module in ("dynamo.frontend", "dynamo.mocker", "dynamo._core", "tokenizers", "zmq"):
        try:
            found = importlib.util.find_spec(module) is not None
        except ImportError:
            found = False
        if not found:
            raise LocalDynamoError(f"`local:` needs NVIDIA Dynamo, but {module!r} is not installed; {INSTALL_HINT}")


def _http_client() -> httpx.AsyncClient:
    # Plain HTTP on loopback: no proxy from the environment, and no certificates to load.
    return httpx.AsyncClient(trust_env=False, verify=False, timeout=5.0)


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        stream.close()
