"""What a user writes in an LLM's `local:` block. Pure pydantic: importing it starts and imports nothing."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.config.engine import OWN_FLAGS, EngineName, ModelOrFolder, RandomModel, check_engine, default_of
from nat_dynamo_plugin.config.values import File

DEFAULT_CONTEXT_LENGTH = 131_072
"""Tokens of context (prompt and answer) that the model takes by default."""

# See `OWN_FLAGS`.
_FRONTEND_FLAGS = {
    "--http-host",
    "--http-port",
    "--router-mode",
    "--router-session-affinity-ttl-secs",
    "--router-session-affinity-mode",
    "--router-queue-threshold",
    "--router-track-output-blocks",
    "--migration-limit",
    "--discovery-backend",
    "--request-plane",
    "--event-plane",
    "--interactive",
    "-i",
}
_OWN_VARIABLES = re.compile(
    r"DYN_(.*_HOST|HTTP_PORT|DISCOVERY_BACKEND|FILE_KV|REQUEST_PLANE|EVENT_PLANE|ZMQ_BROKER_.*)|NAT_DYNAMO_LOCAL_DIR"
)


class LocalDynamoConfig(Block):
    """The embedded Dynamo of one LLM: a real frontend and router in front of engines that simulate, or compute.

    Cache reuse, placement, queueing and the protocol are Dynamo's own. The times of `engine: mocker` are simulated,
    those of `engine: vllm` are this machine's.
    """

    NAME: ClassVar = "local"

    workers: int = Field(default=2, ge=1, le=64, description="Engine workers, 1 to 64.")
    engine: EngineName = Field(
        default="mocker",
        description="`mocker`: Dynamo's simulated engines. `vllm`: Dynamo's vLLM workers, which compute, on a CPU too; "
        "they need an environment of their own (`make engine`).",
    )
    engine_python: File | None = Field(
        default=None,
        description="Python of the environment with vLLM; null: the variable NAT_DYNAMO_ENGINE_PYTHON, else `-engine` "
        "at the end of this environment's folder (`.venv-engine` beside `.venv`).",
    )
    model: ModelOrFolder = Field(
        default_factory=RandomModel,
        description="What vLLM runs: the size of a model of random weights (`layers`, `hidden`, `vocabulary`), or the "
        "folder of a real one.",
    )
    kv_blocks: int = Field(
        default_factory=default_of("kv_blocks"),
        ge=16,
        description="KV cache blocks of each worker, at least 16. Default 8192, with vllm 4096.",
    )
    block_size: int = Field(
        default_factory=default_of("block_size"),
        ge=1,
        le=1024,
        description="Tokens in a KV cache block, 1 to 1024. Default 16, with vllm 32 or a multiple.",
    )
    speedup: float = Field(
        default_factory=default_of("speedup"),
        gt=0,
        description="How many times faster than real time the engines run, above 0. Default 10; vllm takes 1 only.",
    )
    max_num_seqs: int = Field(default=256, ge=1, description="Sequences a worker decodes at once, at least 1.")
    max_num_batched_tokens: int = Field(
        default_factory=default_of("max_num_batched_tokens"),
        ge=1,
        description="Tokens a worker processes in one engine step, at least 1. Default 8192, with vllm 2048.",
    )
    context_length: int = Field(
        default=DEFAULT_CONTEXT_LENGTH,
        ge=128,
        description="Tokens of prompt and answer together that the model takes, at least 128; with vllm no more than "
        "its KV cache holds.",
    )
    port: int | None = Field(
        default=None, ge=1, le=65535, description="The frontend's TCP port on 127.0.0.1, 1 to 65535; null: a free one."
    )
    router_mode: Literal["kv", "round-robin", "random", "power-of-two", "least-loaded"] = Field(
        default="kv", description="How the frontend chooses a worker; `kv` is cache-aware."
    )
    session_affinity_ttl_s: int | None = Field(
        default=600,
        ge=1,
        description="Idle seconds a session stays bound to its worker, at least 1; null turns affinity off.",
    )
    session_affinity_mode: Literal["soft", "hard"] = Field(
        default="soft",
        description="`soft`: the router prefers a session's worker, and may migrate calls when it dies. `hard`: it "
        "takes no other, which defeats migration.",
    )
    queue_threshold: float | None = Field(
        default=None,
        ge=0,
        description="Router queue threshold as a share of `max_num_batched_tokens`, at least 0; 0 makes priorities "
        "act as soon as all workers are busy, null leaves the queue off.",
    )
    track_output_blocks: bool = Field(
        default=False, description="Let the router count the blocks of expected output tokens (`osl`)."
    )
    migration_limit: int = Field(
        default=3,
        ge=0,
        description="How often a request may move to another worker when its own fails, at least 0.",
    )
    scripted_answers: str | None = Field(
        default=None,
        description="Scripted answers: a JSON lines file (`key`, `content`, `tool_calls`), or "
        "`package.module:callable` that returns an iterable of ScriptedAnswer; null: random tokens.",
    )
    answers: File | None = Field(
        default=None,
        description="A recording (`record`) whose calls are answered as they were then, found by their conversation; "
        "null: none.",
    )
    tool_call_parser: str | None = Field(
        default="hermes",
        description="Dynamo's tool-call parser for the model's output; null returns it all as plain content.",
    )
    request_trace: File | None = Field(
        default=None,
        description="File for Dynamo's own request trace (JSON lines, one record a request); null: none.",
    )
    log_dir: File | None = Field(
        default=None,
        description="Folder in which each instance's logs stay, in a folder of its own; null: a temporary one, kept "
        "only if Dynamo fails.",
    )
    frontend_args: list[str] = Field(
        default_factory=list, description="Further flags of `python -m dynamo.frontend`, as they are."
    )
    worker_args: list[str] = Field(
        default_factory=list, description="Further flags of `python -m dynamo.mocker` or `dynamo.vllm`, as they are."
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="Further environment variables of Dynamo's processes."
    )
    startup_timeout_s: float = Field(
        default_factory=default_of("startup_timeout_s"),
        gt=0,
        description="Seconds until a start that is not ready counts as failed, above 0. Default 60, with vllm 900.",
    )

    @property
    def says_nonsense(self) -> bool:
        """Whether it answers with random tokens: neither answers nor a model with weights are given."""
        return self.scripted_answers is None and self.answers is None and isinstance(self.model, RandomModel)

    @field_validator("frontend_args", "worker_args")
    @classmethod
    def _leave_own_flags(cls, value: list[str], info: Any) -> list[str]:
        engine = info.data.get("engine", "mocker")
        own = _FRONTEND_FLAGS if info.field_name == "frontend_args" else OWN_FLAGS[engine]
        for flag in value:
            if flag.split("=", 1)[0] in own:
                raise ValueError(f"{flag!r} is set by the package: use the field of `local` that stands for it, if any")
        return value

    @field_validator("env")
    @classmethod
    def _leave_own_variables(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if _OWN_VARIABLES.fullmatch(name):
                raise ValueError(f"{name!r} is set by the package, which keeps every port on 127.0.0.1")
        return value

    @field_validator("scripted_answers")
    @classmethod
    def _source_has_a_form(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("empty; give a JSON lines file or `package.module:callable`, or null")
        return value

    def _settle(self) -> None:
        if self.answers is not None and self.scripted_answers is not None:
            raise ValueError("`local`: answers and scripted_answers exclude each other; give one of them")
        check_engine(self.engine, self.engine_python, self.model, self.block_size, self.speedup)
