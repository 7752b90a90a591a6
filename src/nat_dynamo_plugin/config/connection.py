"""`connection:` - how the server is reached."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.config.values import Seconds, number


class ConnectionConfig(Block):
    """Timeouts, limits and habits of an LLM's connections."""

    NAME: ClassVar = "connection"
    FLAT: ClassVar = {
        "request_timeout": "read_timeout",
        **{name: name for name in ("connect_timeout", "pool_timeout", "max_connections", "http2", "verify_ssl")},
        "max_answer_bytes": "max_answer_bytes",
    }

    connect_timeout: Seconds = Field(default=10.0, description="Seconds to wait for a connection (default 10).")
    read_timeout: Seconds = Field(
        default=600.0,
        description="Seconds to wait for the next bytes of an answer, and to hand a request over (default 600).",
    )
    pool_timeout: Seconds = Field(
        default=600.0, description="Seconds to wait for a free connection of this client's pool (default 600)."
    )
    engine: Literal["fast", "httpx"] = Field(
        default="fast",
        description="What sends the calls: fast (aiohttp and urllib3, whatever the number of calls at once) or httpx "
        "(slow above 100 or so; taken for HTTP/2 and SOCKS proxies in any case) (default fast).",
    )
    max_connections: Annotated[int, number()] = Field(
        default=1000, description="Most connections a client keeps to the server, 1 or more (default 1000)."
    )
    max_answer_bytes: Annotated[int, number(least=1024)] = Field(
        default=67_108_864,
        description="Longest answer in bytes, streamed or whole; a longer one is an error (default 67108864, 64 MiB).",
    )
    http2: bool = Field(
        default=False, description="Speak HTTP/2 where the server does; needs the package h2 (default false)."
    )
    verify_ssl: bool = Field(default=True, description="Verify the server's certificate (default true).")
    follow_redirects: bool = Field(
        default=True, description="Follow redirects, as OpenAI's own client does (default true)."
    )
    trust_env: bool = Field(
        default=True,
        description="Heed the environment's proxies and certificates: HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and their "
        "like (default true).",
    )
