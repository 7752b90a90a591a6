"""DynamoModelConfig: what a user writes in YAML under `_type: dynamo`, and every error that can come of it."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nat.data_models.optimizable import OptimizableField, SearchSpace
from nat.llm.openai_llm import OpenAIModelConfig
from pydantic import ConfigDict, Field, PrivateAttr, field_serializer, field_validator, model_validator

from nat_dynamo_plugin.admission.gate import IDLE_S, MAX_WAIT_S
from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.dialects import DEFAULT_WIRE, check_dialects
from nat_dynamo_plugin.nearest import nearest_or_all
from nat_dynamo_plugin.question.hints import PrefixHints, PrefixLevel, parse_level_or_number
from nat_dynamo_plugin.question.ids import check_template

if TYPE_CHECKING:
    from nat_dynamo_plugin.service import Service

EMBEDDED_MODEL_NAME = "embedded-dynamo"
"""`model_name` of an embedded Dynamo, where the config gives none."""

EMBEDDED_MAX_TOKENS = 1024
"""`max_tokens` on an embedded Dynamo, where the config gives none: its simulated engines refuse calls without it."""

# NAT 1.9's names of our fields.
_ALIASES = {
    "nvext_prefix_id_template": "prefix_template",
    "nvext_prefix_total_requests": "prefix_total_requests",
    "nvext_prefix_osl": "prefix_osl",
    "nvext_prefix_iat": "prefix_iat",
    "nvext_prediction_trie_path": "prefix_predictions",
    "prediction_trie_path": "prefix_predictions",
    "nvext_max_sensitivity": "max_sensitivity",
}
# NAT 1.9's fields that stock Dynamo has no use for. They are taken, so that a 1.9 config loads, and do nothing:
# `nvext.cache_control` is answered with 400 by Dynamo 1.6.0.
_OBSOLETE = ("nvext_cache_pin_type", "nvext_cache_control_mode")
_OWN_PREFIXES = re.compile(r"^(prefix|nvext|dynamo)_")

# `request_timeout` belongs to OpenAI's fields in 1.9, but the documented 1.4 list has it.
_DYNAMO_FIELDS = frozenset(
    {
        "prefix_template",
        "prefix_total_requests",
        "prefix_osl",
        "prefix_iat",
        "prefix_predictions",
        "prefix_learned",
        "prefix_idle",
        "prefix_max_wait",
        "max_active_prefixes",
        "prefix_wire",
        "request_timeout",
        "connect_timeout",
        "pool_timeout",
        "max_connections",
        "http2",
        "max_sensitivity",
        "local",
        "cache_salt",
    }
)


def other_names(field: str) -> list[str]:
    """Further names under which a config may give a field of `DynamoModelConfig`."""
    return [alias for alias, name in _ALIASES.items() if name == field]


def _number_or_auto(name: str, value: object, most: int | None) -> int | str | None:
    if isinstance(value, str):
        if value.strip().lower() == "auto":
            return "auto"
        if value.strip().isdigit():
            value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1 and (most is None or value <= most):
        return value
    if value is None and name == "max_active_prefixes":
        return None
    allowed = "a whole number of 1 or more" if most is None else f"a whole number from 1 to {most}"
    near = ""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        near = f"; the nearest is {max(1, round(min(value, most or value)))}"
    null = ", or null" if name == "max_active_prefixes" else ""
    raise ValueError(f"{name}={value!r} is not allowed: use {allowed}, or auto{null}{near}")


class DynamoModelConfig(OpenAIModelConfig, name="dynamo"):  # type: ignore[call-arg]
    """An LLM served by NVIDIA Dynamo, with one prefix identity a question and hints about the work to come.

    Give either `base_url` (a cluster) or `local` (an embedded Dynamo with simulated engines). Everything that NAT's
    `_type: openai` takes is taken too; its extra fields go to the framework as OpenAI arguments. API keys belong into
    environment variables (`OPENAI_API_KEY`), not into the config.
    """

    # Built on first use, for every `nat` command imports this module.
    model_config = ConfigDict(defer_build=True)

    prefix_template: str | None = Field(
        default="nat-dynamo-{uuid}",
        description="The prefix id of calls made outside any question, conversation or scope. Placeholders: {uuid} "
        "(once a client), {run}, {conversation}, {function}. A template with {run} or {conversation} shapes every "
        "automatic id. null turns prefixes and hints off.",
    )
    prefix_total_requests: int | Literal["auto"] = OptimizableField(
        default=10,
        description="LLM calls expected of one prefix, 1 to 50. 1 means: no stickiness. auto learns them from the "
        "questions answered, and lets those with the least work to come go first.",
        space=SearchSpace(low=1, high=28, step=3),
    )
    prefix_osl: PrefixLevel | int | Literal["auto"] = OptimizableField(
        default=PrefixLevel.MEDIUM,
        description="Output length expected of a call: LOW, MEDIUM, HIGH (128, 512, 2048 tokens), tokens, or auto.",
        space=SearchSpace(values=[level.value for level in PrefixLevel]),
    )
    prefix_iat: PrefixLevel | int | Literal["auto"] = OptimizableField(
        default=PrefixLevel.MEDIUM,
        description="Time expected between a prefix's calls: LOW, MEDIUM, HIGH (50, 250, 750 ms), "
        "milliseconds, or auto.",
        space=SearchSpace(values=[level.value for level in PrefixLevel]),
    )
    prefix_predictions: Path | None = Field(
        default=None,
        description="A prediction trie written by NAT's profiler, which refines the hints call by call.",
    )
    prefix_learned: Path | None = Field(
        default=None,
        description="File that auto fields read what they know from, if it is there, and write it to in the end.",
    )
    max_active_prefixes: int | Literal["auto"] | None = Field(
        default=None,
        description="Most questions under way at once, 1 or more; the others wait before their first call, those with "
        "the least expected work for the shortest time. auto: as many as the cluster's KV caches hold the prompts of; "
        "null: all at once.",
    )
    prefix_idle: float = Field(
        default=IDLE_S,
        gt=0,
        allow_inf_nan=False,
        description="Seconds without a call after which a question gives its place up to one that waits.",
    )
    prefix_max_wait: float = Field(
        default=MAX_WAIT_S,
        gt=0,
        allow_inf_nan=False,
        description="Longest wait for a place in seconds; after it a question goes on, whatever the limit.",
    )
    prefix_wire: list[str] = Field(
        default_factory=lambda: list(DEFAULT_WIRE),
        description="How plans are said to the server, in order: dynamo (session headers and agent hints), "
        "prefix_headers (x-prefix-*), annotations (for prefix-aware processors), or an installed dialect.",
    )
    max_sensitivity: int = Field(
        default=1000, ge=1, description="Largest latency sensitivity that is sent; larger ones are cut to it."
    )
    enable_nvext_hints: bool = Field(
        default=True, description="NAT 1.9's switch: false does what `prefix_template: null` does."
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Most output tokens of a call; 1024 on an embedded Dynamo unless set."
    )
    request_timeout: float = Field(
        default=600.0,
        gt=0.0,
        description="Seconds to wait for the next bytes of an answer (the read timeout).",
    )
    # NAT's retry fields, which NAT leaves out of dumps: a config that `nat optimize` has written would lose them.
    do_auto_retry: bool = Field(default=True, description="Whether a call that fails is made again at all.")
    num_retries: int | None = Field(
        default=None, gt=0, description="Most requests of one call, the first included; max_retries + 1 unless set."
    )
    retry_on_status_codes: list[int | str] = Field(
        default=[429, 500, 502, 503, 504],
        description="HTTP statuses that are tried again, as numbers or patterns (5xx), besides 408, 409 and 529.",
    )
    retry_on_errors: list[str] | None = Field(
        default=["Too Many Requests", "429"],
        description="Texts that make any error answer be tried again.",
    )
    connect_timeout: float = Field(default=10.0, gt=0.0, description="Seconds to wait for a connection.")
    pool_timeout: float = Field(
        default=600.0, gt=0.0, description="Seconds to wait for a free connection of this client's pool."
    )
    max_connections: int = Field(default=1000, ge=1, description="Most connections a client keeps to the server.")
    cache_salt: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="Keeps this LLM's KV cache entries apart from those of other salts (header x-tenant-id), so that "
        "measurements on a shared cluster do not warm each other's caches.",
    )
    http2: bool = Field(default=False, description="Speak HTTP/2 where the server does; needs the package h2.")
    local: LocalDynamoConfig | None = Field(
        default=None, description="Run an embedded Dynamo for this LLM instead of using base_url."
    )

    _running_service: Service | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _read_names(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for alias, name in _ALIASES.items():
            if alias in data:
                if name in data:
                    raise ValueError(f"{alias} and {name} are two names of one field; keep {name}")
                data[name] = data.pop(alias)
        for name in _OBSOLETE:
            data.pop(name, None)
        own = [*(f for f in cls.model_fields if _OWN_PREFIXES.match(f)), *_ALIASES, *_OBSOLETE]
        for name in data:
            if not isinstance(name, str) or name in cls.model_fields:
                continue
            # A name without our prefix is an OpenAI argument, unless it is all but one of ours.
            if _OWN_PREFIXES.match(name) or get_close_matches(name, own, n=1, cutoff=0.85):
                raise ValueError(f"{name}={data[name]!r}: there is no such field; {nearest_or_all(name, sorted(own))}")
        if data.get("local") is not None:
            if data.get("base_url") is not None:
                raise ValueError(
                    f"base_url={data['base_url']!r} and local are both given; keep base_url for a cluster or local "
                    "for an embedded Dynamo"
                )
            if data.get("model_name") is None and data.get("model") is None:
                data["model_name"] = EMBEDDED_MODEL_NAME
        return data

    @field_validator("prefix_osl", "prefix_iat", mode="before")
    @classmethod
    def _level_or_number(cls, value: object, info: Any) -> PrefixLevel | int | str:
        if isinstance(value, str) and value.strip().lower() == "auto":
            return "auto"
        return parse_level_or_number(info.field_name, value)

    @field_validator("prefix_total_requests", "max_active_prefixes", mode="before")
    @classmethod
    def _number_or_auto(cls, value: object, info: Any) -> int | str | None:
        most = 50 if info.field_name == "prefix_total_requests" else None
        return _number_or_auto(info.field_name, value, most)

    @field_serializer("prefix_osl", "prefix_iat")
    def _plain(self, value: PrefixLevel | int | str) -> str | int:
        # Plain text, not a Python enum, in the YAML files that NAT writes.
        return value.value if isinstance(value, PrefixLevel) else value

    @field_validator("prefix_template")
    @classmethod
    def _known_placeholders(cls, value: str | None) -> str | None:
        if value is not None:
            check_template(value)
        return value

    @field_validator("prefix_wire")
    @classmethod
    def _known_dialects(cls, value: list[str]) -> list[str]:
        check_dialects(value)
        return value

    @property
    def running_service(self) -> Service | None:
        """What the provider has started for this config; see `provider.service_of`."""
        return self._running_service

    @running_service.setter
    def running_service(self, service: Service | None) -> None:
        self._running_service = service

    @property
    def hints_enabled(self) -> bool:
        """Whether calls carry a prefix and hints at all."""
        return self.prefix_template is not None and self.enable_nvext_hints

    @property
    def prefix_hints(self) -> PrefixHints:
        """The hints of this config."""
        total, osl, iat = self.prefix_total_requests, self.prefix_osl, self.prefix_iat
        return PrefixHints(
            total_requests=None if isinstance(total, str) else total,
            osl=None if osl == "auto" else osl,
            iat=None if iat == "auto" else iat,
        )

    @property
    def effective_max_tokens(self) -> int | None:
        """`max_tokens` of a call: the configured value, or the embedded Dynamo's default where there is one."""
        return EMBEDDED_MAX_TOKENS if self.max_tokens is None and self.local is not None else self.max_tokens

    @property
    def openai_arguments(self) -> dict[str, Any]:
        """Sampling arguments that the user set and every OpenAI client takes, plus further named OpenAI arguments.

        Made from named fields, never by dumping the config, so that no field of ours can reach a framework.
        """
        named = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "max_tokens": self.effective_max_tokens,
        }
        return {
            **{name: value for name, value in named.items() if value is not None},
            **{name: value for name, value in (self.model_extra or {}).items() if value is not None},
        }

    @staticmethod
    def get_dynamo_field_names() -> frozenset[str]:
        """Names of the fields that are this provider's own and no OpenAI argument."""
        return _DYNAMO_FIELDS | {"enable_nvext_hints"}
