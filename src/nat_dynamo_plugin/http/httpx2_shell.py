"""The shell for httpx2, which OpenAI's library is built on from its version 3 on. Needs httpx2."""

from __future__ import annotations

from typing import Any, ClassVar

import httpx2

from nat_dynamo_plugin.http.shell import Shell


class Httpx2Shell(Shell, httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """A transport for `httpx2.Client` and `httpx2.AsyncClient`."""

    library: ClassVar[Any] = httpx2
