"""All blocks of an LLM's config, a field each."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from nat_dynamo_plugin.config.admission import AdmissionConfig
from nat_dynamo_plugin.config.block import Discreet
from nat_dynamo_plugin.config.breaker import BreakerConfig
from nat_dynamo_plugin.config.cache import CacheConfig
from nat_dynamo_plugin.config.connection import ConnectionConfig
from nat_dynamo_plugin.config.context import ContextConfig
from nat_dynamo_plugin.config.cost import CostConfig
from nat_dynamo_plugin.config.deadlines import DeadlinesConfig
from nat_dynamo_plugin.config.headers import HeadersConfig
from nat_dynamo_plugin.config.layers import LayerConfig
from nat_dynamo_plugin.config.limits import LimitsConfig
from nat_dynamo_plugin.config.log import LogConfig
from nat_dynamo_plugin.config.org import OrgConfig
from nat_dynamo_plugin.config.provider_cache import ProviderCacheConfig
from nat_dynamo_plugin.config.record import RecordConfig
from nat_dynamo_plugin.config.retry import RetryConfig
from nat_dynamo_plugin.config.trace import TraceConfig


class Blocks(Discreet):
    """What stands around the calls; see each block. A new one is a file with its model, and a field here."""

    model_config = ConfigDict(defer_build=True)

    admission: AdmissionConfig = Field(
        default_factory=AdmissionConfig, description="How many questions may be under way (default: all)."
    )
    retry: RetryConfig = Field(
        default_factory=RetryConfig, description="Which failed calls are made again, and how often."
    )
    connection: ConnectionConfig = Field(
        default_factory=ConnectionConfig, description="Timeouts, limits and habits of the connections."
    )
    breaker: BreakerConfig = Field(
        default_factory=BreakerConfig, description="What becomes of calls while their server is down."
    )
    limits: LimitsConfig | None = Field(
        default=None, description="How much may be asked for in a minute or a day (default: as much as there is)."
    )
    record: RecordConfig | None = Field(
        default=None,
        description="File that every call is written to with its answer, in clear, to run the agent again on an "
        "embedded Dynamo (default: none).",
    )
    deadlines: DeadlinesConfig = Field(
        default_factory=DeadlinesConfig, description="How long a call and a question may take (default: any time)."
    )
    headers: HeadersConfig | None = Field(
        default=None, description="Headers that are added, and headers that never leave or arrive (default: none)."
    )
    trace: TraceConfig | None = Field(default=None, description="Which trace calls are part of (default: none).")
    log: LogConfig | None = Field(default=None, description="One line a call: `calls`, or a block (default: none).")
    org: OrgConfig | None = Field(
        default=None, description="Who tells which org a call is for; each has a KV cache of its own (default: none)."
    )
    prompt_versions: bool = Field(
        default=False, description="Whether records and metrics tell versions of prompts apart (default false)."
    )
    cost: CostConfig | None = Field(
        default=None, description="What calls cost, as prices or as the price of an hour of your GPUs (default: off)."
    )
    provider_cache: ProviderCacheConfig = Field(
        default_factory=ProviderCacheConfig, description="What other providers' prompt caches are told."
    )
    cache: CacheConfig | None = Field(
        default=None,
        description="Give answers again instead of asking the server; {} keeps them in memory (default: off).",
    )
    context: ContextConfig | None = Field(
        default=None, description="How long a conversation may be before its oldest turns are left out (default: any)."
    )
    layers: list[LayerConfig] = Field(
        default_factory=list,
        description="Layers of your own between caller and server, outermost first: the name of an entry point in "
        "nat_dynamo_plugin.layers, or package.module:Class; with options, `{name: {option: value}}` (default: none).",
    )
