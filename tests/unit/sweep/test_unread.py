"""A hint that nothing reads is tuned in vain, which is said."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from nat.runtime.loader import load_config

from nat_dynamo_plugin.sweep.unread import unread

from .conftest import Runs, sweep

OSL = "llms.dynamo.prefix_osl"
KV = "local: {router_mode: kv, track_output_blocks: true}"


@pytest.mark.parametrize(
    ("written", "tuned", "read"),
    [
        ("local: {}", [OSL], False),
        ("local: {track_output_blocks: true, router_mode: round-robin}", [OSL], False),
        (KV, [OSL], True),
        ("local: {queue_threshold: 0}", [OSL], True),
        ("local: {frontend_args: [--x]}", [OSL], True),
        ("local: {}", [OSL, "llms.dynamo.local.track_output_blocks"], True),
        ("local: {}", [OSL, "llms.dynamo.local.queue_threshold"], True),
        ("local: {}", ["llms.dynamo.prefix_iat"], True),
        ("local: {}\n    prefix_wire: [annotations]", [OSL], True),
        ("base_url: http://localhost:1/v1", [OSL], True),
    ],
)
def test_who_reads_the_output_length(write: Callable[..., Path], written: str, tuned: list[str], read: bool) -> None:
    config = load_config(write(("base_url: http://localhost:1/v1", written)))
    assert set(unread(config, tuned)) == (set() if read else {OSL})


async def test_it_is_said_in_the_log_and_in_the_report(
    write: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local = ("base_url: http://localhost:1/v1", "local: {}")
    with caplog.at_level(logging.WARNING):
        await sweep(write(local), Runs())
    assert f"{OSL} is tuned, but nothing reads it" in caplog.text
    assert "track_output_blocks" in (tmp_path / "out" / "report.html").read_text()


def test_no_shipped_config_tunes_what_nothing_reads() -> None:
    from nat.plugins.config_optimizer.optimizable_utils import walk_optimizables

    files = sorted((Path(__file__).parents[3] / "configs").glob("optimize_*.yml"))
    assert files
    for file in files:
        config = load_config(file)
        assert unread(config, list(walk_optimizables(config))) == {}
