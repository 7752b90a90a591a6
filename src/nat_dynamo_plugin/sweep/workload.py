"""What a sweep was measured on: servers, questions, versions and machine, for people to read. Never a key."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

from nat.data_models.config import Config

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.sweep.open_loop import OpenLoopConfig
from nat_dynamo_plugin.sweep.space import plain

_PACKAGES = ("nat-dynamo-plugin", "nvidia-nat-core", "ai-dynamo", "optuna")
_LOCAL = (
    "workers",
    "kv_blocks",
    "block_size",
    "speedup",
    "max_num_seqs",
    "max_num_batched_tokens",
    "router_mode",
    "session_affinity_mode",
    "session_affinity_ttl_s",
    "queue_threshold",
    "track_output_blocks",
)
_DATASET = ("limit", "seed", "ids", "file_path")


def measured_on(config: Config) -> dict[str, dict[str, Any]]:
    """Facts by topic. Of URLs only scheme, host and port are given, and of datasets only what chooses the questions."""
    return {**dict(_servers(config)), "Workload": _workload(config), "Machine": _machine()}


def _servers(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, llm in config.llms.items():
        if not isinstance(llm, DynamoModelConfig):
            continue
        if llm.local is not None:
            facts: dict[str, Any] = {
                "Dynamo": "embedded: real frontend and router, simulated engines (latencies are simulated)"
            }
            facts.update({field: plain(getattr(llm.local, field)) for field in _LOCAL})
            facts["answers"] = "scripted" if llm.local.scripted_answers else "random tokens"
        else:
            url = urlsplit(llm.base_url or os.getenv("OPENAI_BASE_URL") or "")
            host = f"{url.hostname or '?'}{f':{url.port}' if url.port else ''}"
            facts = {"Dynamo": f"{url.scheme}://{host}", "isolation": "a cache salt for each run"}
        yield f"Cluster ({name})", {**facts, "model": llm.model_name}


def _workload(config: Config) -> dict[str, Any]:
    general = config.eval.general
    facts: dict[str, Any] = {"workflow": config.workflow.type, "most questions at once": general.max_concurrency}
    if general.dataset is not None:
        facts["questions from"] = general.dataset.type
        for field in _DATASET:
            value = getattr(general.dataset, field, None)
            if value is not None:
                facts[f"questions: {field}"] = str(value)
    used = set(getattr(config.workflow, "middleware", None) or ())
    for function in config.functions.values():
        used.update(function.middleware or ())
    arrivals = [one for name, one in config.middleware.items() if name in used and isinstance(one, OpenLoopConfig)]
    for one in arrivals:
        facts["arrivals"] = f"open loop, Poisson, {one.rate:g} questions/s, seed {one.seed}"
    if not arrivals:
        facts["arrivals"] = "closed loop: the next question when one is done"
    return facts


def _machine() -> dict[str, Any]:
    facts = {
        "CPUs": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts
