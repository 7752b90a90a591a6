"""From a config to one Service: the layers in order, and what clients of one server and model share."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nat_dynamo_plugin import guards
from nat_dynamo_plugin.admission.capacity import CapacityProbe
from nat_dynamo_plugin.admission.gauges import gate_gauges
from nat_dynamo_plugin.admission.shared import GateSettings, SharedGates
from nat_dynamo_plugin.cache.responses import ResponseCache
from nat_dynamo_plugin.config.cost import cost_layers
from nat_dynamo_plugin.config.keys import sources_of
from nat_dynamo_plugin.config.model import BASE_URL, DynamoModelConfig
from nat_dynamo_plugin.dialects import DEFAULT_WIRE, load_dialects
from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.dialects.origins import dialects_for
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.dialects.speaker import Speaker
from nat_dynamo_plugin.discreet_logs import guard_logs
from nat_dynamo_plugin.guards import shared
from nat_dynamo_plugin.http.banned import Banned
from nat_dynamo_plugin.http.brief import brief_logs
from nat_dynamo_plugin.http.call import origin_of
from nat_dynamo_plugin.http.clients import HttpClients, client_pair
from nat_dynamo_plugin.http.engines import Connection
from nat_dynamo_plugin.http.flow import Layer, Send, chained
from nat_dynamo_plugin.http.shell import KeyOf
from nat_dynamo_plugin.layers.admission import AdmissionLayer
from nat_dynamo_plugin.layers.answer import AnswerLayer
from nat_dynamo_plugin.layers.cache import CacheLayer
from nat_dynamo_plugin.layers.cache_scope import CallerScope
from nat_dynamo_plugin.layers.key import PLACEHOLDER, KeyLayer, key_layer
from nat_dynamo_plugin.layers.learning import LearningLayer
from nat_dynamo_plugin.layers.payload_headers import PayloadHeadersLayer
from nat_dynamo_plugin.layers.prompt_version import PromptVersionLayer
from nat_dynamo_plugin.layers.question import QuestionLayer
from nat_dynamo_plugin.layers.record import RecordLayer
from nat_dynamo_plugin.layers.recording import RecordingLayer, ReplayLayer
from nat_dynamo_plugin.layers.redirect import RedirectLayer
from nat_dynamo_plugin.layers.refusal import RefusalLayer
from nat_dynamo_plugin.layers.trace import RequestIdLayer
from nat_dynamo_plugin.learning.learner import WorkLearner
from nat_dynamo_plugin.plan.counters import CallCounters
from nat_dynamo_plugin.plan.planner import Planner
from nat_dynamo_plugin.plan.predictions import load_predictions
from nat_dynamo_plugin.question.ids import PrefixTemplate
from nat_dynamo_plugin.recording.recorder import Recorder
from nat_dynamo_plugin.secrets import remember_config
from nat_dynamo_plugin.telemetry.exporters import Emit, emit
from nat_dynamo_plugin.telemetry.gauges import add_gauges
from nat_dynamo_plugin.telemetry.listening import expose_metrics

OPENAI_URL = "https://api.openai.com"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """One LLM as its clients need it: where it is, and the layers that their calls go through.

    Attributes:
        base_url: OpenAI-compatible URL ending in `/v1`, or `None` for the OpenAI library's own default.
        model_name: the model's name there.
        send: the layers, outermost first, down to the server.
        connection: how clients connect.
        headers: sent with every request.
        planner: makes the plans of all this LLM's clients, so that its counters are one truth; `None` with hints off.
        admission: the gate's layer, if there is one.
        learning: what learns, if anything is `auto`.
        keys: the key's layer, if there is a key.
        banned: headers that leave with no request.
        cache: the response cache, if there is one.
    """

    base_url: str | None
    model_name: str
    send: Send = field(repr=False)
    connection: Connection = field(default_factory=Connection)
    headers: dict[str, str] = field(default_factory=dict)
    planner: Planner[Said] | None = None
    admission: AdmissionLayer | None = None
    learning: LearningLayer | None = None
    keys: KeyLayer | None = field(default=None, repr=False)
    banned: Banned | None = None
    cache: ResponseCache | None = field(default=None, repr=False)

    @property
    def api_key(self) -> str | None:
        """What a client is to have for a key: `unused`, which the layers fill in; `None` for OpenAI's own default."""
        # A server of one's own may want no key, but the OpenAI library does.
        return PLACEHOLDER if self.keys is not None or self.base_url else None

    @property
    def key_of(self) -> KeyOf | None:
        """What puts a key into requests that are no calls, if there is a key; see `Shell`."""
        return None if self.keys is None else self.keys.header_for

    def close(self) -> None:
        """Keep what was learned, and what was answered."""
        if self.learning is not None:
            self.learning.close()
        if self.cache is not None:
            self.cache.close()

    @asynccontextmanager
    async def http_clients(self) -> AsyncIterator[HttpClients]:
        """A pair of HTTP clients on this service's layers, closed at the end of the block."""
        async with client_pair(
            self.send, self.connection, self.base_url, self.headers, self.key_of, self.banned
        ) as made:
            yield HttpClients(*made, self.base_url, self.model_name, self.api_key)


class _Shared:
    """What LLMs of one server and model share, as long as one of them is in use."""

    def __init__(self) -> None:
        self.gates = SharedGates()
        self.refusals: weakref.WeakValueDictionary[str, RefusalLayer] = weakref.WeakValueDictionary()
        self.counters: weakref.WeakValueDictionary[tuple[str, str], CallCounters] = weakref.WeakValueDictionary()


_shared = _Shared()


def make_service(
    config: DynamoModelConfig,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    script: Dialect | None = None,
    answer_key: Callable[[], str | None] | None = None,
    replay: ReplayLayer | None = None,
    emit_record: Emit = emit,
) -> Service:
    """The service of a config.

    Args:
        config: what the user wrote.
        base_url: where the server is, in place of the config's `base_url` and of `OPENAI_BASE_URL`.
        api_key: in place of the config's `api_key` and of `OPENAI_API_KEY`, and of the same forms.
        script: asks for a call's scripted answer, on an embedded Dynamo that has a script.
        answer_key: names that answer, for the response cache.
        replay: names the recorded answers of calls, on an embedded Dynamo that has a recording.
        emit_record: where records go.

    Raises:
        ValueError: for a file or a key that the config names and that is not what it should be, or not there.
    """
    base_url = base_url or config.base_url or os.getenv(BASE_URL)
    _prepare(config, base_url)
    origin = origin_of(base_url or OPENAI_URL)
    template = PrefixTemplate(config.prefix_template) if config.prefix_template is not None else None
    learning, admission = _learning(config), _admission(config, origin, template)
    speaker, planner, question = _speaking(config, origin, template, script, learning, admission)
    keys = key_layer([api_key] if api_key else sources_of(config.api_key), origin)
    cost, attempt_cost = cost_layers(config.cost, origin)
    layers: Sequence[Layer | None] = (
        *_observers(config),
        RecordLayer(config.model_name, origin if base_url else None, emit_record),
        cost,
        *_labels(config),
        *_conversation(config, replay),
        guards.waiting(config),
        (cache := _cache(config, question, keys, answer_key)),
        question,
        guards.deadline(config),
        learning,
        admission,
        shared(_shared.refusals, origin, RefusalLayer) if speaker.dialects else None,
        guards.retry(config, origin),
        keys,
        *guards.each_attempt(config, origin),
        *_nearest(config, speaker, attempt_cost),
    )
    return Service(
        base_url=base_url,
        model_name=config.model_name,
        send=chained(layer for layer in layers if layer is not None),
        connection=_connection(config),
        headers={"x-tenant-id": config.cache_salt} if config.cache_salt else {},
        planner=planner,
        admission=admission,
        learning=learning,
        keys=keys,
        banned=None if config.headers is None else config.headers.banned(),
        cache=None if cache is None else cache.cache,
    )


def _observers(config: DynamoModelConfig) -> Sequence[Layer | None]:
    """What sees the finished record, so above the record's layer."""
    blocks = (config.log, config.trace)
    return [None if block is None else block.layer() for block in blocks]


def _labels(config: DynamoModelConfig) -> Sequence[Layer | None]:
    """What says for whom a call is and with which prompt, and what the user has put there."""
    blocks = (config.headers, config.org)
    layers: list[Layer | None] = [None if block is None else block.layer() for block in blocks]
    prompts = PromptVersionLayer() if config.prompt_versions else None
    return [PayloadHeadersLayer(), *layers, prompts, *(layer.make() for layer in config.layers)]


def _conversation(config: DynamoModelConfig, replay: ReplayLayer | None) -> Sequence[Layer | None]:
    """What sees the caller's whole conversation, and below it what shortens that."""
    recording = None if config.record is None else RecordingLayer(Recorder(config.record.file, config.record.redact))
    return recording, replay, None if config.context is None else config.context.layer()


def _nearest(config: DynamoModelConfig, speaker: Speaker, cost: Layer | None) -> Sequence[Layer | None]:
    """What is nearest to the server: one request and its answer."""
    return (
        cost,
        RedirectLayer() if config.connection.follow_redirects else None,
        None if config.trace is None else RequestIdLayer(),
        AnswerLayer(speaker.usage_readers, config.connection.max_answer_bytes),
    )


def _prepare(config: DynamoModelConfig, base_url: str | None) -> None:
    add_gauges(gate_gauges)
    expose_metrics()
    guard_logs()
    brief_logs()
    remember_config([config, base_url])


def _cache(
    config: DynamoModelConfig,
    question: QuestionLayer | None,
    keys: KeyLayer | None,
    answer_key: Callable[[], str | None] | None,
) -> CacheLayer | None:
    if config.cache is None:
        return None
    scope = CallerScope(None if keys is None else keys.tenant, answer_key, PLACEHOLDER)
    note = None if question is None else question.note
    return CacheLayer(config.cache.make(), scope, note, tuple(config.cache.key_headers))


def _connection(config: DynamoModelConfig) -> Connection:
    block = config.connection
    return Connection(
        max_connections=block.max_connections,
        engine=block.engine,
        http2=block.http2,
        verify_ssl=block.verify_ssl,
        trust_env=block.trust_env,
        connect_s=block.connect_timeout,
        read_s=block.read_timeout,
        write_s=block.read_timeout,
        pool_s=block.pool_timeout,
    )


def _learning(config: DynamoModelConfig) -> LearningLayer | None:
    if not config.learns:
        return None
    try:
        return LearningLayer(WorkLearner(), config.prefix_learned)
    except ValueError as error:
        raise ValueError(f"prefix_learned={str(config.prefix_learned)!r}: {error}") from error


def _admission(config: DynamoModelConfig, origin: str, template: PrefixTemplate | None) -> AdmissionLayer | None:
    block = config.admission
    if block.max_active_prefixes is None or template is None:
        return None
    gate = _shared.gates.get(
        origin, config.model_name, GateSettings(block.max_active_prefixes, block.idle, block.max_wait)
    )
    probe = None
    if gate.adapts:
        probe = CapacityProbe(config.model_name, gate.on_capacity, verify=config.connection.verify_ssl)
    return AdmissionLayer(gate, probe)


def _speaking(
    config: DynamoModelConfig,
    origin: str,
    template: PrefixTemplate | None,
    script: Dialect | None,
    learning: LearningLayer | None,
    admission: AdmissionLayer | None,
) -> tuple[Speaker, Planner[Said] | None, QuestionLayer | None]:
    chosen = "prefix_wire" in config.model_fields_set
    names = dialects_for(config.prefix_wire, origin, DEFAULT_WIRE, is_dynamo=config.local is not None, chosen=chosen)
    dialects: tuple[Dialect, ...] = load_dialects(names, config.provider_cache.options(config.model_name))
    if not config.hints_enabled or template is None:
        dialects = tuple(dialect for dialect in dialects if not dialect.needs_plan)
        template = None
    speaker = Speaker(dialects if script is None else (*dialects, script))
    if template is None:
        return speaker, None, QuestionLayer(speaker, None) if speaker.dialects else None
    planner = Planner(
        template,
        config.prefix_hints,
        say=speaker.say,
        predictions=load_predictions(config.prefix_predictions) if config.prefix_predictions else None,
        max_sensitivity=config.max_sensitivity,
        expect=None if learning is None else learning.expected,
        crowded=None if admission is None else admission.is_crowded,
        counters=shared(_shared.counters, (origin, config.model_name), CallCounters),
    )
    return speaker, planner, QuestionLayer(speaker, planner)
