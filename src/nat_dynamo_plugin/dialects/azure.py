"""Azure OpenAI: as OpenAI. A deployment's name need not tell its model, so most often the key alone is said."""

from __future__ import annotations

from nat_dynamo_plugin.dialects.openai import OpenAI


class Azure(OpenAI):
    """OpenAI's fields."""

    name = "azure"
    provider = "azure.ai.openai"
