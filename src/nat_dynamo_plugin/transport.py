"""DynamoTransport: prefixes, hints and telemetry for an httpx client of one's own, without NAT's builder."""

from __future__ import annotations

import httpx

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.http.httpx_shell import HttpxShell
from nat_dynamo_plugin.service import Service, make_service

ANY_MODEL = "any"
"""Model name of a transport that was given none; it names the model in records of calls that nobody answered."""


class DynamoTransport(HttpxShell):
    """Wraps a transport of httpx: a sync one, an async one, or one that is both.

    Calls of the chat completions, completions and responses APIs go through the layers of the service, others pass
    untouched. Give the transports of a sync and of an async client one service, and they share counters and gate:

        service = make_service(DynamoModelConfig(model_name="m", prefix_total_requests=4))
        client = openai.OpenAI(http_client=httpx.Client(transport=DynamoTransport(httpx.HTTPTransport(), service)))

    Args:
        transport: what really sends.
        service: the layers; or a config, for a service of this transport's own. The default is a config of defaults.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport,
        service: Service | DynamoModelConfig | None = None,
    ) -> None:
        if not isinstance(service, Service):
            service = make_service(service or DynamoModelConfig(model_name=ANY_MODEL))
        self.service = service
        super().__init__(
            transport, service.send, http2=service.connection.http2, key=service.key_of, banned=service.banned
        )
