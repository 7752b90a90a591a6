"""DynamoTransport for clients of httpx2, as those of the `anthropic` SDK from its version 2 on."""

from __future__ import annotations

import httpx2

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.http.httpx2_shell import Httpx2Shell
from nat_dynamo_plugin.service import Service, make_service


class DynamoTransport(Httpx2Shell):
    """Wraps a transport of httpx2: a sync one, an async one, or one that is both.

    Calls of OpenAI's chat completions, completions and responses, and of Anthropic's messages, go through the layers of
    the service; others pass untouched. Let the SDK retry nothing, for the service does:

        service = make_service(DynamoModelConfig(model_name="claude-sonnet-4-5", base_url="https://api.anthropic.com"))
        transport = DynamoTransport(httpx2.HTTPTransport(), service)
        client = anthropic.Anthropic(http_client=httpx2.Client(transport=transport), max_retries=0)

    Args:
        transport: what really sends.
        service: the layers; or a config, for a service of this transport's own.
    """

    def __init__(
        self,
        transport: httpx2.BaseTransport | httpx2.AsyncBaseTransport,
        service: Service | DynamoModelConfig,
    ) -> None:
        if not isinstance(service, Service):
            service = make_service(service)
        self.service = service
        super().__init__(transport, service.send, http2=service.connection.http2, key=service.key_of)
