"""The frontend's command line, and the environment of all processes. Nothing here starts anything."""

from __future__ import annotations

import os
import re
import site
import sys
from pathlib import Path

from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.secrets import is_secret_value, is_secret_variable

MARKER_VARIABLE = "NAT_DYNAMO_LOCAL_DIR"
"""Environment variable that every process of an instance carries; its value is the instance's work directory."""

# What a shell or a real deployment may have set must not reach an instance of our own: addresses, caches elsewhere.
# Nor does it get keys (`secrets`), for which it has no use.
_FOREIGN_VARIABLE = re.compile(
    r"(DYN|NATS|ETCD|HF|XDG)_.*|(TRANSFORMERS|HUGGINGFACE_HUB)_CACHE|AWS_ACCESS_KEY_ID", re.IGNORECASE
)


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


def environment(config: LocalDynamoConfig, work_dir: Path) -> dict[str, str]:
    """The processes' environment: this process's own without keys and without anything that points elsewhere."""
    values = {
        name: value
        for name, value in os.environ.items()
        if not (_FOREIGN_VARIABLE.fullmatch(name) or is_secret_variable(name) or is_secret_value(value))
    }
    values |= {
        # Dynamo leaves files in both.
        "HOME": str(home_folder(work_dir)),
        "TMPDIR": str(temporary_folder(work_dir)),
        # Packages that were installed for this user only would otherwise be looked for in the new home.
        "PYTHONUSERBASE": site.getuserbase(),
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


def home_folder(work_dir: Path) -> Path:
    """What the processes take for the user's home."""
    return work_dir / "home"


def temporary_folder(work_dir: Path) -> Path:
    """Where the processes keep temporary files."""
    return work_dir / "tmp"


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
