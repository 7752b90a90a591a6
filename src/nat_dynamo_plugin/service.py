"""The provider behind `_type: dynamo`: starts the embedded Dynamo if the config asks for one, and stops it after."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from nat.data_models.common import get_secret_value

from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.dialects import load_dialects
from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.dialects.scripted import Replay
from nat_dynamo_plugin.dialects.speaker import Speaker
from nat_dynamo_plugin.http.transport import ServerMemory
from nat_dynamo_plugin.layers.workload import Workload, make_workload
from nat_dynamo_plugin.plan.planner import Planner
from nat_dynamo_plugin.plan.predictions import load_predictions


class Asking(NamedTuple):
    """What an LLM's clients say of their calls, and follow them with.

    Attributes:
        planner: takes the turns of all this LLM's clients, so that its counters are one truth; `None` with hints off.
        speaker: what the planner says its plans with, or says what needs no plan; `None` for nothing.
        workload: what is learned and bounded; `None` for neither.
    """

    planner: Planner[Said] | None
    speaker: Speaker | None
    workload: Workload | None


def asking(config: DynamoModelConfig, *more: Dialect) -> Asking:
    """What a config asks for, in its own dialects and some more.

    Raises:
        ValueError: if the prediction trie or what was learned can not be read.
    """
    speaker = Speaker((*load_dialects(config.prefix_wire), *more))
    if not config.hints_enabled or config.prefix_template is None:
        return Asking(None, speaker.without_plan(), None)
    workload = make_workload(config)
    planner = Planner(
        config.prefix_template,
        config.prefix_hints,
        say=speaker.say,
        predictions=load_predictions(config.prefix_predictions) if config.prefix_predictions else None,
        max_sensitivity=config.max_sensitivity,
        expect=None if workload is None or workload.learner is None else workload.expected,
        crowded=None if workload is None or workload.gate is None else workload.is_crowded,
    )
    return Asking(planner, speaker, workload)


@dataclass(frozen=True)
class Service:
    """One LLM as its clients need it: where it is, and what they share.

    Attributes:
        base_url: OpenAI-compatible URL ending in `/v1`, or `None` for the OpenAI library's own default.
        model_name: the model's name there.
        api_key: the key, or `None`.
        asking: what its clients say of their calls.
        memory: what was learned of the server.
    """

    base_url: str | None
    model_name: str
    api_key: str | None = field(repr=False)
    asking: Asking
    memory: ServerMemory


# A config object may be built several times at once (repetitions of an optimizer's trial), each build with an embedded
# Dynamo of its own. Builds run in tasks of their own, so a context variable tells them apart; a client made later, in a
# context that does not descend from the build, gets the service built last.
_building: ContextVar[dict[int, Service] | None] = ContextVar("dynamo_services", default=None)


def service_of(config: DynamoModelConfig) -> Service:
    """The service of a config; made on the spot for a config that no provider has started.

    Raises:
        RuntimeError: if the config asks for an embedded Dynamo and none is running.
    """
    service = (_building.get() or {}).get(id(config)) or config.running_service
    if service is None:
        if config.local is not None:
            raise RuntimeError("The embedded Dynamo of this LLM is not running; build the LLM through NAT's builder")
        service = config.running_service = remote_service(config)
    return service


def remote_service(config: DynamoModelConfig, *more: Dialect) -> Service:
    """The service at a config's `base_url`, or at `OPENAI_BASE_URL`, in some more dialects than its own."""
    return Service(
        base_url=config.base_url or os.getenv("OPENAI_BASE_URL"),
        model_name=config.model_name,
        api_key=get_secret_value(config.api_key) or os.getenv("OPENAI_API_KEY"),
        asking=asking(config, *more),
        memory=ServerMemory(),
    )


@asynccontextmanager
async def running_service(config: DynamoModelConfig) -> AsyncIterator[Service]:
    """The service of a config for the length of the block, with its embedded Dynamo running if it has one."""
    async with AsyncExitStack() as stack:
        if config.local is None:
            service = remote_service(config)
        else:
            service = await _embedded(config, config.local, stack)
        if service.asking.workload is not None:
            stack.callback(service.asking.workload.close)
        config.running_service = service
        _building.set({**(_building.get() or {}), id(config): service})
        try:
            yield service
        finally:
            _building.set({key: s for key, s in (_building.get() or {}).items() if key != id(config)})
            if config.running_service is service:
                config.running_service = None


async def _embedded(config: DynamoModelConfig, local: LocalDynamoConfig, stack: AsyncExitStack) -> Service:
    """The service on an embedded Dynamo of its own, which runs until the stack is left."""
    from nat_dynamo_plugin.local import LocalDynamo, current_scripted_answer

    dynamo = LocalDynamo(local, model_name=config.model_name)

    def answer_key() -> str | None:
        key = current_scripted_answer()
        if key is not None:
            dynamo.check_answer_key(key)  # Dynamo would answer an unknown key with random tokens
        return key

    service = remote_service(config, *((Replay(answer_key),) if local.scripted_answers else ()))
    await stack.enter_async_context(dynamo)
    return replace(
        service,
        base_url=dynamo.base_url,
        # The OpenAI library wants some key; the embedded Dynamo has no use for one.
        api_key=service.api_key if config.api_key is not None else "unused",
    )
