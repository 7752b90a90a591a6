"""A Dynamo each of whose processes can be killed and started again: frontend, workers, broker. On loopback only.

The embedded Dynamo of the package ends with any of its processes, as it should. Its command lines are used here, with
a process a worker. The kernel ends every process with this one (`local/tethered.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from nat_dynamo_plugin.admission.capacity import count_workers
from nat_dynamo_plugin.local import LocalDynamoConfig, ScriptedAnswer, commands
from nat_dynamo_plugin.local.answers import AnswerBook
from nat_dynamo_plugin.local.engines.mocker import worker_command
from nat_dynamo_plugin.local.model import eos_token_id, load_tokenizer, tokenizer_file, write_model_folder

MODEL = "outages"
FRONTEND, BROKER = "frontend", "broker"
_TETHERED = Path(commands.__file__).with_name("tethered.py")
_BROKER = """
import sys, zmq
context = zmq.Context()
sockets = []
for kind, port in ((zmq.XSUB, sys.argv[1]), (zmq.XPUB, sys.argv[2])):
    sock = context.socket(kind)
    sock.setsockopt(zmq.SNDHWM, 0)
    sock.setsockopt(zmq.RCVHWM, 0)
    sock.bind("tcp://127.0.0.1:" + port)
    sockets.append(sock)
zmq.proxy(*sockets)
"""


class Cluster:
    """One Dynamo, process by process.

    Args:
        config: the cluster; `workers` processes of one worker each.
        answers: what its engines say.
    """

    def __init__(self, config: LocalDynamoConfig, answers: Sequence[ScriptedAnswer]) -> None:
        self.config = config
        self._work_dir = Path(tempfile.mkdtemp(prefix="nat-dynamo-outages-"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._held: list[socket.socket] = []
        self.port, xsub, xpub = (self._hold_port() for _ in range(3))
        tokenizer = tokenizer_file()
        for folder in (commands.home_folder(self._work_dir), commands.temporary_folder(self._work_dir)):
            folder.mkdir()
        model_folder, trace = self._work_dir / "model", self._work_dir / "answers.jsonl"
        write_model_folder(model_folder, tokenizer, config.context_length)
        book = AnswerBook(answers)
        trace.write_text("".join(book.replay_trace(load_tokenizer(tokenizer), eos_token_id())), encoding="utf-8")
        self._environment = commands.environment(config, self._work_dir)
        self._environment["DYN_ZMQ_BROKER_URL"] = f"xsub=tcp://127.0.0.1:{xsub} , xpub=tcp://127.0.0.1:{xpub}"
        one = config.model_copy(update={"workers": 1})
        self._argv = {
            BROKER: [sys.executable, "-P", "-c", _BROKER, str(xsub), str(xpub)],
            FRONTEND: commands.frontend_command(config, self.port),
            **{
                name: worker_command(one, model_folder, MODEL, trace)
                for name in (f"worker{number}" for number in range(config.workers))
            },
        }

    @property
    def names(self) -> list[str]:
        """All processes."""
        return list(self._argv)

    @property
    def workers(self) -> list[str]:
        """The workers."""
        return [name for name in self._argv if name not in (BROKER, FRONTEND)]

    @property
    def url(self) -> str:
        """The frontend's root."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *names: str) -> None:
        """Start these processes, or all."""
        for name in names or self.names:
            with (self._work_dir / f"{name}.log").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(_TETHERED), str(os.getpid()), *self._argv[name]],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._environment,
                    process_group=0,
                )  # fmt: skip

    def kill(self, *names: str) -> None:
        """Kill these processes, or all, as a node dies."""
        for name in names or list(self._processes):
            process = self._processes.pop(name)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    async def ready(self) -> None:
        """Wait until the frontend serves the model with all workers that run."""
        running = sum(name in self._processes for name in self.workers)
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    models = await client.get(f"{self.url}/v1/models")
                    health = await client.get(f"{self.url}/health")
                    known = models.status_code == 200 and models.json().get("data")
                    if known and count_workers(health.json()) >= running:
                        return
                await asyncio.sleep(0.05)

    async def __aenter__(self) -> Self:
        self.start()
        try:
            await asyncio.wait_for(self.ready(), 60.0)
        except BaseException:
            self.end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Kill all and remove what they wrote."""
        self.kill()
        for held in self._held:
            held.close()
        keep = os.environ.get("OUTAGES_LOGS")
        if keep:
            shutil.copytree(self._work_dir, keep, dirs_exist_ok=True)
        shutil.rmtree(self._work_dir, ignore_errors=True)

    def _hold_port(self) -> int:
        """A port that nobody else gets; bound but not listening, so that ours can, again and again."""
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        self._held.append(held)
        port: int = held.getsockname()[1]
        return port
