"""What a sweep was measured on: servers, questions, versions and machine, for people to read. Never a key."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

from nat.data_models.config import Config
from nat.data_models.optimizer import OptimizerRunConfig

from nat_dynamo_plugin.config.model import BASE_URL, DynamoModelConfig
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
_ENGINES = {
    "mocker": "simulated engines (latencies are simulated)",
    "vllm": "vLLM on this machine (latencies are computed, and its own)",
}
_DATASET = ("limit", "seed", "ids", "file_path")


def measured_on(config: Config, options: OptimizerRunConfig, unread: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Facts by topic. Of URLs only scheme, host and port are given, and of datasets only what chooses the questions.

    Args:
        config: the current one.
        options: of `nat optimize`.
        unread: tuned paths that nothing reads, with the reason.
    """
    facts = {**dict(_servers(config)), "Workload": _workload(config), "Machine": _machine()}
    if options.dataset is not None:
        facts["Workload"]["questions: file_path"] = str(options.dataset)
    if options.endpoint is not None:
        facts["Workload"]["endpoint"] = _host(options.endpoint)
    return {**facts, "Tuned without effect": dict(unread)} if unread else facts


def _host(url: str) -> str:
    found = urlsplit(url)
    return f"{found.scheme}://{found.hostname or '?'}{f':{found.port}' if found.port else ''}"


def _servers(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, llm in config.llms.items():
        if not isinstance(llm, DynamoModelConfig):
            continue
        if llm.local is not None:
            facts: dict[str, Any] = {"Dynamo": f"embedded: real frontend and router, {_ENGINES[llm.local.engine]}"}
            facts.update({field: plain(getattr(llm.local, field)) for field in _LOCAL})
            facts["answers"] = "scripted" if llm.local.scripted_answers else "random tokens"
        else:
            server = _host(llm.base_url or os.getenv(BASE_URL) or "")
            facts = {"Dynamo": server, "isolation": "a cache salt for each run"}
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
