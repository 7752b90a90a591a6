"""Services in use: which one belongs to a config, from its build to its end, with its embedded Dynamo if it has one."""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.layers.cache_scope import take_answer_key
from nat_dynamo_plugin.layers.key import PLACEHOLDER
from nat_dynamo_plugin.layers.recording import ReplayLayer
from nat_dynamo_plugin.service import Service, make_service

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Running:
    """A service in use for a config; told apart from one that is over, whoever ends it and where."""

    config: weakref.ref[DynamoModelConfig]
    service: Service
    over: bool = False


# A config object may be built several times at once (repetitions of an optimizer's trial), each build with an embedded
# Dynamo of its own. Builds run in tasks of their own, so a context variable tells them apart; a client made later, in a
# context that does not descend from the build, gets the service built last.
_building: ContextVar[tuple[_Running, ...]] = ContextVar("dynamo_services", default=())


def service_of(config: DynamoModelConfig) -> Service:
    """The service of a config; made on the spot for a config that no provider has started.

    Raises:
        RuntimeError: if the config asks for an embedded Dynamo and none is running.
        ValueError: if it names no server.
    """
    for running in reversed(_building.get()):
        if running.config() is config and not running.over:
            return running.service
    service: Service | None = config.running_service
    if service is None:
        if config.local is not None:
            raise RuntimeError("The embedded Dynamo of this LLM is not running; build the LLM through NAT's builder")
        config.require_server()
        service = config.running_service = make_service(config)
    return service


@asynccontextmanager
async def running_service(config: DynamoModelConfig) -> AsyncIterator[Service]:
    """The service of a config for the length of the block, with its embedded Dynamo running if it has one.

    Raises:
        ValueError: if the config names no server.
    """
    async with AsyncExitStack() as stack:
        if config.local is None:
            config.require_server()
            service = make_service(config)
        else:
            service = await _embedded(config, config.local, stack)
        stack.callback(service.close)
        config.running_service = service
        running = _Running(weakref.ref(config), service)
        _building.set((*(r for r in _building.get() if not r.over), running))
        try:
            yield service
        finally:
            running.over = True
            if config.running_service is service:
                config.running_service = None


async def _embedded(config: DynamoModelConfig, local: LocalDynamoConfig, stack: AsyncExitStack) -> Service:
    """The service on an embedded Dynamo of its own, which runs until the stack is left."""
    from nat_dynamo_plugin.local import LocalDynamo, current_scripted_answer, scripted_answer

    scripted = local.answers is not None or local.scripted_answers is not None
    if local.says_nonsense:
        logger.warning(
            "`local`: no answers are given, so the engines say random tokens, of which no agent can make anything; "
            "record your agent's calls on a real model (record: calls.jsonl) and give local.answers"
        )
    dynamo = await stack.enter_async_context(LocalDynamo(local, model_name=config.model_name))
    replay = None
    if dynamo.recorded is not None:
        from nat_dynamo_plugin.local.recorded import key_of
        from nat_dynamo_plugin.recording.conversations import Conversations

        recorded = dynamo.recorded
        conversations = Conversations(recorded.rows, recorded.rules, source=str(local.answers))
        replay = ReplayLayer(conversations, lambda number: scripted_answer(key_of(number)), recorded.unsayable)

    return make_service(
        config,
        base_url=dynamo.base_url,
        api_key=PLACEHOLDER,  # it has no use for a key
        script=dynamo.script(partial(take_answer_key, current_scripted_answer)) if scripted else None,
        answer_key=current_scripted_answer if scripted else None,
        replay=replay,
    )
