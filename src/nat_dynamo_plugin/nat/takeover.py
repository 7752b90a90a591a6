"""Put our provider in the place of NAT's own `dynamo`, which stays reachable as `builtin_dynamo`.

NAT resolves a short name only while it is unique, and its registry has no way to give a name back. So the built-in's
entry is taken out, ours goes in, and the built-in's is put back under another local name. This module is the only one
that touches private names of NAT.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from nat.builder.builder import Builder
from nat.builder.llm import LLMProviderInfo
from nat.cli.register_workflow import register_llm_provider
from nat.cli.type_registry import GlobalTypeRegistry, RegisteredLLMProviderInfo

from nat_dynamo_plugin.config.model import DynamoModelConfig

BUILTIN_NAME = "builtin_dynamo"


async def dynamo_llm(config: DynamoModelConfig, _builder: Builder) -> AsyncIterator[LLMProviderInfo]:
    """The provider: an LLM served by Dynamo, with prefixes and hints; starts and stops an embedded Dynamo."""
    from nat_dynamo_plugin.running import running_service

    async with running_service(config):
        yield LLMProviderInfo(config=config, description="An LLM on NVIDIA Dynamo, with prefixes and hints.")


def take_over_dynamo() -> None:
    """Register our provider as `dynamo` and NAT's as `builtin_dynamo`. Does nothing the second time.

    Raises:
        RuntimeError: if NAT's registry is not built as NAT 1.9 builds it.
    """
    # Importing it makes sure that the built-in has registered already and will not do so after us.
    from nat.llm.dynamo_llm import DynamoModelConfig as BuiltinConfig

    registry = GlobalTypeRegistry.get()
    infos = getattr(registry, "_registered_llm_provider_infos", None)
    if not isinstance(infos, dict) or not hasattr(BuiltinConfig, "_typed_model_name"):
        raise RuntimeError(
            "nat-dynamo-plugin can not take the name `dynamo`: NAT's type registry is not built as in NAT 1.9. "
            "Install nvidia-nat-core>=1.9,<1.10."
        )
    if DynamoModelConfig in infos:
        return
    builtin = infos.pop(BuiltinConfig, None)
    register_llm_provider(config_type=DynamoModelConfig)(dynamo_llm)
    if builtin is not None:
        full_type = f"{builtin.module_name}/{BUILTIN_NAME}"
        # A frozen entry caches its names, so it is made anew. The config class bears the name too: NAT writes it into
        # dumped configs, which must come back to the same class.
        BuiltinConfig.full_type = full_type
        BuiltinConfig._typed_model_name = BUILTIN_NAME
        registry.register_llm_provider(
            RegisteredLLMProviderInfo(
                full_type=full_type,
                config_type=BuiltinConfig,
                build_fn=builtin.build_fn,
                discovery_metadata=builtin.discovery_metadata,
            )
        )
