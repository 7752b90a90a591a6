"""DynamoModelConfig: what a user writes in YAML under `_type: dynamo`. Each block has a file of its own beside this."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from nat.data_models.optimizable import OptimizableField, SearchSpace
from nat.llm.openai_llm import OpenAIModelConfig
from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator

from nat_dynamo_plugin.config.block import Location
from nat_dynamo_plugin.config.blocks import Blocks
from nat_dynamo_plugin.config.headers import TRACED, refuse_bans_of
from nat_dynamo_plugin.config.keys import Keys
from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.config.names import Names
from nat_dynamo_plugin.config.url import checked_url, server_of
from nat_dynamo_plugin.config.values import Auto, File, LevelOrNumber, number
from nat_dynamo_plugin.dialects import DEFAULT_WIRE, check_dialects
from nat_dynamo_plugin.nearest import shown
from nat_dynamo_plugin.question.hints import I32_MAX, IAT, OSL, TOTAL_REQUESTS, PrefixHints, PrefixLevel
from nat_dynamo_plugin.question.ids import check_template

if TYPE_CHECKING:
    from nat_dynamo_plugin.service import Service

logger = logging.getLogger(__name__)

EMBEDDED_MODEL_NAME = "embedded-dynamo"
"""`model_name` of an embedded Dynamo, where the config gives none."""

EMBEDDED_MAX_TOKENS = 1024
"""`max_tokens` on an embedded Dynamo, where the config gives none: its simulated engines refuse calls without it."""

BASE_URL = "OPENAI_BASE_URL"
"""The server's URL, where the config gives neither `base_url` nor `local`."""

_OPENAI_ARGUMENTS = ("temperature", "top_p", "seed", "max_tokens")
"""The fields that are arguments of a call."""


class DynamoModelConfig(Blocks, OpenAIModelConfig, name="dynamo"):
    """An LLM served by NVIDIA Dynamo, with one prefix identity a question and hints about the work to come.

    Give either `base_url` (a cluster) or `local` (an embedded Dynamo with simulated engines). Everything that NAT's
    `_type: openai` takes is taken too; its extra fields go to the framework as OpenAI arguments. API keys belong into
    environment variables or files, which `api_key` names, not into the config.
    """

    # Built on first use, for every `nat` command imports this module.
    model_config = ConfigDict(defer_build=True)

    api_key: Keys = Field(
        default=None,
        description="The key, or a list of keys to fall back on when one is refused: env:NAME, file:/path (read again "
        "when it changes), or the key itself (default env:OPENAI_API_KEY, if that is set).",
    )
    prefix_template: str | None = Field(
        default="nat-dynamo-{uuid}",
        description="The prefix id of calls made outside any question, conversation or scope (default "
        "nat-dynamo-{uuid}). Placeholders: {uuid} (once a client), {run}, {conversation}, {function}. A template with "
        "{run} or {conversation} shapes every automatic id. null turns prefixes and hints off.",
    )
    prefix_total_requests: Annotated[int | Auto, number(auto=True, most=50)] = OptimizableField(
        default=10,
        description=f"{TOTAL_REQUESTS}, 1 to 50 (default 10). 1 means: no stickiness. auto learns them from the "
        "questions answered, and lets those with the least work to come go first.",
        space=SearchSpace(low=1, high=28, step=3),
    )
    prefix_osl: LevelOrNumber = OptimizableField(
        default=PrefixLevel.MEDIUM,
        description=f"{OSL.capitalize()}: LOW, MEDIUM (the default), HIGH (128, 512, 2048), a number, or auto.",
        space=SearchSpace(values=[level.value for level in PrefixLevel]),
    )
    prefix_iat: LevelOrNumber = OptimizableField(
        default=PrefixLevel.MEDIUM,
        description=f"{IAT.capitalize()}: LOW, MEDIUM (the default), HIGH (50, 250, 750 ms), milliseconds, or auto.",
        space=SearchSpace(values=[level.value for level in PrefixLevel]),
    )
    prefix_predictions: File | None = Field(
        default=None,
        description="A prediction trie written by NAT's profiler, which refines the hints call by call (default: "
        "none).",
    )
    prefix_learned: File | None = Field(
        default=None,
        description="File that auto fields read what they know from, if it is there, and write it to in the end "
        "(default: none). Its folder must be there.",
    )
    prefix_wire: list[str] = Field(
        default_factory=lambda: list(DEFAULT_WIRE),
        description="How plans are said to the server, in order: dynamo (session headers and agent hints), "
        "prefix_headers (x-prefix-*), annotations (for prefix-aware processors), another provider (openai, azure, "
        "anthropic, bedrock, fireworks, xai, deepseek, gemini, openrouter), an installed dialect, or auto, which goes "
        "by the server's address and says headers alone to an unknown one (default dynamo, prefix_headers; a provider "
        "hears its own).",
    )
    max_sensitivity: Annotated[int, number(most=I32_MAX)] = Field(
        default=1000,
        description="Largest latency sensitivity that is sent, 1 or more (default 1000); larger ones are cut to it.",
    )
    enable_nvext_hints: bool = Field(
        default=True,
        description="NAT 1.9's switch (default true): false does what `prefix_template: null` does.",
    )
    max_tokens: Annotated[int | None, number(null=True)] = Field(
        default=None, description="Most output tokens of a call; 1024 on an embedded Dynamo unless set."
    )
    cache_salt: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="Keeps this LLM's KV cache entries apart from those of other salts (header x-tenant-id), so that "
        "measurements on a shared cluster do not warm each other's caches (default: none).",
    )
    local: LocalDynamoConfig | None = Field(
        default=None, description="Run an embedded Dynamo for this LLM instead of using base_url (default: none)."
    )
    # What NAT has beside the blocks: the blocks hold these values, and NAT's code can read them here. They are left out
    # of dumps, as most are by NAT itself, for the block is in them.
    max_retries: int = Field(default=10, frozen=True, exclude=True, description="Same as `retry.max_retries`.")
    num_retries: int = Field(default=11, frozen=True, exclude=True, description="One more than `retry.max_retries`.")
    do_auto_retry: bool = Field(
        default=True, frozen=True, exclude=True, description="Whether `retry.max_retries` is above 0."
    )
    retry_on_status_codes: list[int | str] = Field(
        default_factory=list, frozen=True, exclude=True, description="Same as `retry.on_status`."
    )
    retry_on_errors: list[str] | None = Field(
        default=None, frozen=True, exclude=True, description="Same as `retry.on_errors`."
    )
    request_timeout: float = Field(
        default=600.0, frozen=True, exclude=True, description="Same as `connection.read_timeout`, in seconds."
    )
    verify_ssl: bool = Field(default=True, frozen=True, exclude=True, description="Same as `connection.verify_ssl`.")

    _running_service: Service | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _read_names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = names().read(data)
        if isinstance(data.get("base_url"), str) and not data["base_url"].strip():
            data["base_url"] = None  # what an unset ${VARIABLE} leaves
        if data.get("local") is not None:
            if data.get("base_url") is not None:
                raise ValueError(
                    f"{shown('base_url', data['base_url'])} and local are both given; keep base_url for a cluster or "
                    "local for an embedded Dynamo"
                )
            if data.get("model_name") is None and data.get("model") is None:
                data["model_name"] = EMBEDDED_MODEL_NAME
        return data

    @field_validator("base_url")
    @classmethod
    def _url_of_a_server(cls, value: str | None) -> str | None:
        return None if value is None else checked_url("base_url", value)

    @field_validator("prefix_template")
    @classmethod
    def _makes_an_id(cls, value: str | None) -> str | None:
        if value is not None:
            check_template(value)
        return value

    @field_validator("prefix_wire", mode="before")
    @classmethod
    def _one_dialect(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("prefix_wire")
    @classmethod
    def _known_dialects(cls, value: list[str]) -> list[str]:
        check_dialects(value)
        for name in value:
            if value.count(name) > 1:
                raise ValueError(f"prefix_wire names {name!r} twice; it is said once, so keep one")
        return value

    @field_validator("prefix_learned")
    @classmethod
    def _can_be_written(cls, value: File | None) -> File | None:
        if value is not None and not value.parent.is_dir():
            raise ValueError(f"prefix_learned={str(value)!r}: there is no folder {str(value.parent)!r}; make it first")
        return value

    def _settle(self) -> None:
        for name in names().blocks:
            for flat, value in (block.flat() if (block := getattr(self, name)) is not None else {}).items():
                if flat in type(self).model_fields:
                    self.__dict__[flat] = value
        limit = self.admission.max_active_prefixes
        if limit is not None and not self.hints_enabled:
            off = "prefix_template: null" if self.prefix_template is None else "enable_nvext_hints: false"
            raise ValueError(
                f"max_active_prefixes={limit!r} can not act with {off}: without prefixes nothing tells questions "
                "apart; leave one of them out"
            )
        if self.deadlines.question is not None and not self.hints_enabled:
            raise ValueError(
                f"question_deadline={self.deadlines.question!r} can not act without prefixes, for nothing tells "
                "questions apart then; use call_timeout"
            )
        if self.trace is not None and self.headers is not None:
            refuse_bans_of(self.headers.ban, TRACED)
        if self.prefix_learned is not None and not (self.learns and self.hints_enabled):
            logger.warning(
                "prefix_learned=%r is not used: nothing here is learned; set prefix_total_requests, prefix_osl or "
                "prefix_iat to auto",
                str(self.prefix_learned),
            )

    @classmethod
    def _as_written(cls, loc: Location, data: Any) -> Location:
        return names().as_written(loc, data)

    def require_server(self) -> str | None:
        """URL of the server, of the config or of `OPENAI_BASE_URL`; `None` where an embedded Dynamo is to be started.

        Raises:
            ValueError: if neither is given, since OpenAI's library would send prompts, hints and key to OpenAI then.
        """
        if self.local is not None:
            return None
        url: str = self.base_url or os.environ.get(BASE_URL, "").strip()
        if not url:
            raise ValueError(
                "base_url: which server? Give base_url, as http://my-dynamo-frontend:8000/v1, or `local: {}` for an "
                "embedded Dynamo; or set OPENAI_BASE_URL"
            )
        return checked_url("base_url" if self.base_url else BASE_URL, url)

    @property
    def server(self) -> tuple[str, str] | None:
        """What tells one server and model from another, however the URL is spelt; `None` for an embedded Dynamo.

        Raises:
            ValueError: as `require_server`.
        """
        url = self.require_server()
        return None if url is None else (server_of(url), self.model_name)

    @property
    def running_service(self) -> Service | None:
        """What the provider has started for this config; see `service.service_of`."""
        return self._running_service

    @running_service.setter
    def running_service(self, service: Service | None) -> None:
        self._running_service = service

    @property
    def hints_enabled(self) -> bool:
        """Whether calls carry a prefix and hints at all."""
        return self.prefix_template is not None and self.enable_nvext_hints

    @property
    def learns(self) -> bool:
        """Whether any hint is learned from the questions answered."""
        return "auto" in (self.prefix_total_requests, self.prefix_osl, self.prefix_iat)

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
        named = {name: getattr(self, name) for name in _OPENAI_ARGUMENTS} | {"max_tokens": self.effective_max_tokens}
        return {name: value for name, value in {**named, **(self.model_extra or {})}.items() if value is not None}

    @staticmethod
    def get_dynamo_field_names() -> frozenset[str]:
        """Names of the fields that are this provider's own and no OpenAI argument, or that it acts on by itself."""
        fields = DynamoModelConfig.model_fields.keys()
        ours = fields - OpenAIModelConfig.model_fields.keys() - set(_OPENAI_ARGUMENTS)
        return frozenset(ours | (fields & names().flat.keys()))


@cache
def names() -> Names:
    """The names that a config of `_type: dynamo` may use."""
    return Names(DynamoModelConfig)


def other_names(path: str) -> list[str]:
    """Further names under which a config may give a field of `DynamoModelConfig`.

    Args:
        path: the field, or block and field, as `admission.idle`; the further names are of this form too.
    """
    return names().others(path)
