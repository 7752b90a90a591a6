"""The shell for httpx."""

from __future__ import annotations

from typing import Any, ClassVar

import httpx

from nat_dynamo_plugin.http.shell import Shell


class HttpxShell(Shell, httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport for `httpx.Client` and `httpx.AsyncClient`."""

    library: ClassVar[Any] = httpx
