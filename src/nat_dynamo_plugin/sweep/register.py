"""Register the optimizer `dynamo_sweep` and the middleware `dynamo_open_loop`. Optuna is imported when a sweep runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from nat.cli.register_workflow import register_optimizer

from nat_dynamo_plugin.sweep import open_loop as open_loop
from nat_dynamo_plugin.sweep.config import DynamoSweepConfig
from nat_dynamo_plugin.sweep.nat_config import let_nat_take

if TYPE_CHECKING:
    from nat_dynamo_plugin.sweep.sweep import DynamoSweep


let_nat_take(DynamoSweepConfig)


@register_optimizer(config_type=DynamoSweepConfig)
async def dynamo_sweep(config: DynamoSweepConfig) -> AsyncIterator[DynamoSweep]:
    """The runner that `nat optimize` asks for its result."""
    from nat_dynamo_plugin.sweep.sweep import DynamoSweep

    yield DynamoSweep(config)
