"""What a user writes in an LLM's `local:` block. Pure pydantic: importing it starts and imports nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LocalDynamoConfig(BaseModel):
    """The embedded Dynamo of one LLM: a real frontend and router in front of simulated engines."""

    model_config = ConfigDict(extra="forbid")

    workers: int = Field(default=2, ge=1, le=64, description="Simulated engine workers.")
    kv_blocks: int = Field(default=8192, ge=16, description="KV cache blocks of each worker.")
    block_size: int = Field(default=16, ge=1, description="Tokens in a KV cache block.")
    speedup: float = Field(default=10.0, gt=0, description="How many times faster than real time the engines run.")
    max_num_seqs: int = Field(default=256, ge=1, description="Sequences a worker decodes at once.")
    max_num_batched_tokens: int = Field(default=8192, ge=1, description="Tokens a worker processes in one step.")
    router_mode: Literal["kv", "round-robin", "random"] = Field(default="kv", description="Frontend router mode.")
    session_affinity_ttl_s: int | None = Field(
        default=600, ge=1, description="Seconds a session stays bound to its worker; null turns affinity off."
    )
    session_affinity_mode: Literal["soft", "hard"] = Field(default="hard", description="Session affinity mode.")
    queue_threshold: float | None = Field(
        default=None, ge=0, description="Router queue threshold; 0 makes priorities act, null leaves the queue off."
    )
    track_output_blocks: bool = Field(default=False, description="Let the router use expected output tokens.")
    migration_limit: int = Field(default=3, ge=0, description="How often a request may move to another worker.")
    scripted_answers: str | None = Field(
        default=None,
        description="Scripted answers: a JSON lines file, or `package.module:callable` that yields ScriptedAnswer.",
    )
    tool_call_parser: str | None = Field(default="hermes", description="Dynamo's tool call parser for the model.")
    frontend_args: list[str] = Field(default_factory=list, description="Further frontend flags, as they are.")
    worker_args: list[str] = Field(default_factory=list, description="Further mocker flags, as they are.")
    env: dict[str, str] = Field(default_factory=dict, description="Further environment variables of the processes.")
    startup_timeout_s: float = Field(default=60.0, gt=0, description="Seconds until start-up counts as failed.")
