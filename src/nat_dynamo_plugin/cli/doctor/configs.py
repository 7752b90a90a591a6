"""What can be said of a config without asking anybody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from nat_dynamo_plugin.cli.doctor.findings import AFFINITY, KV_ROUTER, OUTPUT_BLOCKS, Finding
from nat_dynamo_plugin.secrets import is_secret_value

if TYPE_CHECKING:
    from nat_dynamo_plugin.config.model import DynamoModelConfig

_LONGEST_DUMMY = 12
"""Characters of what people write where a server wants no key."""

Server = tuple[str, str, str, str | None]
"""An LLM's name, its server's base URL, its model, and its key."""


def look_at_config(file: Path) -> tuple[list[Server], list[Finding]]:
    """The servers that a config's `_type: dynamo` LLMs ask, and what was found in the file."""
    from nat.utils.io.yaml_tools import yaml_load

    from nat_dynamo_plugin.config.model import DynamoModelConfig

    servers: list[Server] = []
    found: list[Finding] = []
    try:
        written = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        if not isinstance(written, dict) or not isinstance(written.get("llms") or {}, dict):
            raise ValueError("llms: <name>: ... is what a NAT config has, and this has not")
        llms: dict[str, Any] = dict(yaml_load(file).get("llms") or {})
    except (OSError, ValueError, yaml.YAMLError) as error:
        return [], [Finding("config", "bad", f"{file}: {error}", "nothing runs", unreachable=True)]
    dynamo = {name: block for name, block in llms.items() if isinstance(block, dict) and block.get("_type") == "dynamo"}
    if not dynamo:
        what = f"{file} has no LLM of _type: dynamo"
        return [], [Finding("config", "bad", what, "nothing goes through the plugin", "llms: <name>: _type: dynamo")]
    for name, block in dynamo.items():
        try:
            config = DynamoModelConfig.model_validate({k: v for k, v in block.items() if k != "_type"})
        except ValueError as error:
            found.append(Finding(f"{name}: config", "bad", str(error), "nothing runs", unreachable=True))
            continue
        found += _in_clear(name, (written.get("llms") or {}).get(name))
        if config.local is not None:
            found += _local(name, config)
            continue
        try:
            url = config.require_server()
            if url is not None:
                servers.append((name, url.rstrip("/"), config.model_name, _key(config)))
        except ValueError as error:
            found.append(Finding(f"{name}: server", "bad", str(error), "nothing runs", unreachable=True))
    return servers, found


def _key(config: DynamoModelConfig) -> str | None:
    """The first key that the config names; the environment's where it names none, as calls do."""
    import os

    from nat_dynamo_plugin.config.keys import DEFAULT
    from nat_dynamo_plugin.layers.key_sources import source_of

    keys = config.api_key if isinstance(config.api_key, list) else [config.api_key]
    if keys[0] is None:
        return os.environ.get(DEFAULT)
    return source_of(keys[0].get_secret_value()).value()


def _in_clear(name: str, block: Any) -> Iterator[Finding]:
    for field, value in (block or {}).items() if isinstance(block, dict) else ():
        if not field.endswith("api_key") or not isinstance(value, str) or value.startswith(("env:", "file:", "${")):
            continue
        if is_secret_value(value) or len(value) > _LONGEST_DUMMY:
            what = f"{field} stands in the file in clear"
            yield Finding(f"{name}: key", "warning", what, "whoever reads the file has it", f"{field}: env:NAME")


def _local(name: str, config: DynamoModelConfig) -> Iterator[Finding]:
    local = config.local
    assert local is not None
    if local.session_affinity_ttl_s is None:
        what = "local.session_affinity_ttl_s is null"
        yield Finding(f"{name}: sessions", "bad", what, "prefix ids do not act", f"600 (on a cluster: {AFFINITY})")
    if local.session_affinity_mode == "hard":
        what = "local.session_affinity_mode is hard"
        yield Finding(f"{name}: affinity mode", "warning", what, "migration can not help when a worker dies", "soft")
    if local.router_mode != "kv":
        what = f"local.router_mode is {local.router_mode}"
        yield Finding(f"{name}: router", "bad", what, "no call is sent where its prefix is", f"kv ({KV_ROUTER})")
    if "prefix_osl" in config.model_fields_set and config.prefix_osl is not None and not local.track_output_blocks:
        what = "prefix_osl is set and local.track_output_blocks is off"
        yield Finding(f"{name}: output blocks", "warning", what, "osl does nothing", f"true ({OUTPUT_BLOCKS})")
    if local.says_nonsense:
        what = "an embedded Dynamo without answers answers with random tokens"
        change = "local.answers: RECORDING (docs/own-agent.md), or local.scripted_answers: FILE"
        yield Finding(f"{name}: answers", "warning", what, "agents get no usable answer", change)
