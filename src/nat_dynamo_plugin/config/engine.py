"""What `local:` may say of its engine, beside what holds for all."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.config.values import File

EngineName = Literal["mocker", "vllm"]

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "mocker": {
        "kv_blocks": 8192,
        "block_size": 16,
        "speedup": 10.0,
        "max_num_batched_tokens": 8192,
        "startup_timeout_s": 60.0,
    },
    # A CPU computes 2,000 tokens of a small model in half a second, and an engine step keeps all who decode waiting.
    "vllm": {
        "kv_blocks": 4096,
        "block_size": 32,
        "speedup": 1.0,
        "max_num_batched_tokens": 2048,
        "startup_timeout_s": 900.0,
    },
}
"""Of fields of `local`, by engine."""

_EVERYWHERE = {"--max-model-len", "--block-size", "--num-gpu-blocks-override", "--max-num-seqs", "--discovery-backend"}
_EVERYWHERE |= {"--max-num-batched-tokens", "--request-plane", "--event-plane", "--endpoint"}

# Addresses, ports, discovery and the model are the package's business: changing them would open ports to the
# network, or let one instance meet another.
OWN_FLAGS: Mapping[str, Set[str]] = {
    "mocker": _EVERYWHERE
    | {"--model-path", "--model-name", "--num-workers", "--speedup-ratio"}
    | {"--response-replay-trace-path", "--tool-call-parser"},
    "vllm": _EVERYWHERE
    | {"--model", "--served-model-name", "--kv-events-config", "--dyn-tool-call-parser", "--load-format"}
    | {"--enable-prefix-caching", "--no-enable-prefix-caching"},
}
"""Flags of the workers that fields of `local` stand for, by engine."""


class RandomModel(Block):
    """A Llama of random weights: it computes as a model of its size does, and says nothing of sense."""

    NAME: ClassVar = "model"

    layers: int = Field(default=8, ge=1, le=128, description="Transformer layers, 1 to 128.")
    hidden: int = Field(
        default=512, ge=64, le=16384, multiple_of=64, description="Hidden size, 64 to 16384, in steps of 64."
    )
    vocabulary: int = Field(
        default=32_768,
        ge=512,
        le=32_768,
        description="Tokens of its tokenizer, 512 to 32768, which is the simulated model's.",
    )


ModelOrFolder = Annotated[
    Annotated[RandomModel, Tag("size")] | Annotated[File, Tag("folder")],
    Discriminator(lambda given: "size" if isinstance(given, dict | RandomModel) else "folder"),
]
"""What `local.model` takes; an error is about that of the two which was given."""


def default_of(field: str) -> Any:
    """A pydantic `default_factory`: the field's default for the engine that is asked for."""
    return lambda data: DEFAULTS[data.get("engine", "mocker")][field]


def check_engine(engine: str, python: Path | None, model: object, block_size: int, speedup: float) -> None:
    """Refuse what does not go with an engine; the arguments are fields of `local`.

    Raises:
        ValueError: names the field.
    """
    if engine != "vllm":
        for field, given in (("engine_python", python is not None), ("model", model != RandomModel())):
            if given:
                raise ValueError(f"`local`: {field} is for engine: vllm; the engine here is {engine}")
        return
    if speedup != 1.0:
        raise ValueError(
            f"`local`: speedup={speedup:g}: speedup is for engine: mocker; vllm computes, and takes the time it takes"
        )
    if block_size % 32:
        raise ValueError(f"`local`: block_size={block_size}: vLLM on a CPU takes multiples of 32 only")
    if isinstance(model, Path) and not (model / "config.json").is_file():
        raise ValueError(f"`local`: model={str(model)!r}: there is no config.json; name the folder of a model")
