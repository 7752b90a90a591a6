"""Which of the tuned hints nothing reads: every trial of such a one measures the same."""

from __future__ import annotations

from collections.abc import Sequence

from nat.data_models.config import Config

from nat_dynamo_plugin.config.model import DynamoModelConfig

_OSL = "prefix_osl"
_WIRE = {"dynamo", "prefix_headers"}


def unread(config: Config, paths: Sequence[str]) -> dict[str, str]:
    """The tuned paths that nothing on an embedded Dynamo reads, with the reason. Of a cluster nothing is known here.

    The router reads `osl` to count output blocks, which are part of a worker's load in the `kv` mode. It is also a
    factor of the priority, which goes out where a question's work is known, and acts in the router's queue.
    """
    return {
        path: "the embedded router counts no output blocks (local.track_output_blocks with router_mode: kv)"
        for name, llm in config.llms.items()
        if isinstance(llm, DynamoModelConfig) and (path := f"llms.{name}.{_OSL}") in paths
        if not _reads_osl(llm, [other.removeprefix(f"llms.{name}.") for other in paths])
    }


def _reads_osl(llm: DynamoModelConfig, tuned: Sequence[str]) -> bool:
    local = llm.local
    if local is None or local.frontend_args or set(llm.prefix_wire) - _WIRE:
        return True
    if {"local.track_output_blocks", "local.queue_threshold"} & set(tuned):
        return True
    return (local.track_output_blocks and local.router_mode == "kv") or local.queue_threshold is not None
