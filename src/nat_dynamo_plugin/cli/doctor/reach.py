"""Whether a server can be reached at all, and if not, what is in the way. Never longer than `LIMIT_S`."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from nat_dynamo_plugin.cli.doctor.findings import Finding
from nat_dynamo_plugin.config.url import checked_url
from nat_dynamo_plugin.nearest import hidden

LIMIT_S = 8.0
"""Seconds for all of it."""
STEP_S = 4.0
"""Seconds for one step."""
_NO_CALL = "no call is answered"
PROXY_VARIABLES = "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY"
"""What names a proxy."""
_NO_PROXY = "NO_PROXY: the server's host, or the right proxy"


class Unreachable(Exception):
    """A server that can not be asked.

    Attributes:
        finding: why not.
    """

    def __init__(self, topic: str, seen: str, change: str = "") -> None:
        super().__init__(seen)
        self.finding = Finding(topic, "bad", seen, _NO_CALL, change, unreachable=True)


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for a URL."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme) or getproxies().get("all")
    return None if proxy is None or proxy_bypass(parts.hostname or "") else proxy


async def reach(base_url: str, client: httpx.AsyncClient) -> tuple[list[str], list[Finding]]:
    """The models that a server serves, and what was found on the way.

    Raises:
        Unreachable: it can not be asked.
    """
    try:
        async with asyncio.timeout(LIMIT_S):
            return await _reach(base_url, client)
    except TimeoutError:
        raise Unreachable("answer", f"no answer to GET {base_url}/models within {LIMIT_S:g} s") from None


async def _reach(base_url: str, client: httpx.AsyncClient) -> tuple[list[str], list[Finding]]:
    try:
        checked_url("base_url", base_url)
    except ValueError as error:
        raise Unreachable("URL", str(error)) from None
    found: list[Finding] = []
    proxy = proxy_for(base_url)
    if proxy is None:
        found.append(await _connect(base_url))
    else:
        found.append(Finding("proxy", "ok", f"{_proxy(proxy)}, named by the environment"))
    try:
        response = await client.get(f"{base_url}/models", timeout=STEP_S)
    except httpx.ProxyError as error:
        raise Unreachable("proxy", f"the proxy {found[0].seen}, answers: {error}", _NO_PROXY) from None
    except httpx.TimeoutException:
        raise Unreachable(
            "answer",
            f"accepts connections and does not answer GET {base_url}/models within {STEP_S:g} s",
            "is this the port of the frontend's HTTP server?",
        ) from None
    except httpx.ConnectError as error:
        if proxy is None:
            raise Unreachable("HTTP", f"{type(error).__name__}: {error}", _other_scheme(base_url)) from None
        raise Unreachable("proxy", f"no connection by the proxy {found[0].seen}: {error}", _NO_PROXY) from None
    except httpx.HTTPError as error:
        raise Unreachable("HTTP", f"{type(error).__name__}: {error}", _other_scheme(base_url)) from None
    if response.history:
        found.append(_redirect(base_url, response))
    models = models_in(response)
    if models is not None:
        found.append(Finding("path", "ok", f"{base_url}/models lists {len(models)}"))
        return models, found
    await _explain(base_url, client, response)
    kind = response.headers.get("content-type", "of no type").partition(";")[0]
    what = f"GET {base_url}/models: {response.status_code}, {kind}: no list of models"
    found.append(Finding("path", "unknown", what, change="base_url: ends with /v1, and is the API's, not a page's"))
    return [], found  # it may serve calls all the same


def _proxy(url: str) -> str:
    """A proxy's URL without its login.

    Raises:
        Unreachable: it is none; httpx would fail at it in ways of its own.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.hostname and parts.port != 0:
            return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    except ValueError:
        pass  # a port that is no number, or above 65535
    what = f"the proxy {hidden(url)}, named by the environment, is no URL with a host and a port from 1 to 65535"
    raise Unreachable("proxy", what, PROXY_VARIABLES)


def _redirect(base_url: str, response: httpx.Response) -> Finding:
    to = str(response.url.copy_with(query=None, userinfo=b""))
    what = f"{base_url}/models: {response.history[0].status_code}, redirected to {to}"
    change = f"base_url: {to.removesuffix('/models')}"
    return Finding("redirect", "warning", what, "a round trip more for each call, and another host gets no key", change)


async def _connect(base_url: str) -> Finding:
    """DNS, TCP, and TLS if asked for."""
    parts = urlsplit(base_url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        addresses = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(
            "DNS", f"{host!r} has no address ({error.strerror or error})", "base_url: the right host"
        ) from None
    context = ssl.create_default_context() if parts.scheme == "https" else None
    try:
        async with asyncio.timeout(STEP_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.close()
    except TimeoutError:
        raise Unreachable(
            "TCP", f"{where} does not answer within {STEP_S:g} s", "a firewall, or the wrong host"
        ) from None
    except ssl.SSLCertVerificationError as error:
        change = "SSL_CERT_FILE: a certificate that you trust"
        raise Unreachable("TLS", f"the certificate of {where} is not trusted: {error.verify_message}", change) from None
    except (ssl.SSLError, ConnectionResetError) as error:
        if context is None:
            raise Unreachable("TCP", f"{where} closes the connection: {error}") from None
        raise Unreachable("TLS", f"{where} does not speak TLS ({error})", _other_scheme(base_url)) from None
    except OSError as error:
        what = f"nothing listens on {where} ({error.strerror or error})"
        raise Unreachable("TCP", what, "base_url: the right port") from None
    return Finding("connection", "ok", f"{where}, {addresses[0][4][0]}{', TLS' if context else ''}")


def without_login(base_url: str) -> tuple[str, tuple[str, str] | None]:
    """A URL without a user's name and password, which no finding may show, and these."""
    try:
        parts = urlsplit(base_url)
        login = (unquote(parts.username or ""), unquote(parts.password or ""))
    except ValueError:  # it is refused, with its secrets hidden
        return base_url, None
    if login == ("", ""):
        return base_url, None
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), login


def _other_scheme(base_url: str) -> str:
    parts = urlsplit(base_url)
    other = "http" if parts.scheme == "https" else "https"
    return f"base_url: {urlunsplit(parts._replace(scheme=other))}"


def models_in(response: httpx.Response) -> list[str] | None:
    """Names of the models in an answer to `GET /models`; `None` if it is none."""
    if response.status_code >= 300:
        return None
    try:
        data: Any = response.json()
        return [str(model["id"]) for model in data["data"]]
    except (ValueError, KeyError, TypeError):
        return None


async def _explain(base_url: str, client: httpx.AsyncClient, response: httpx.Response) -> None:
    """Say why there is no list of models, if it is known.

    Raises:
        Unreachable: it is.
    """
    status = response.status_code
    if status in (401, 403):
        raise Unreachable("key", f"GET {base_url}/models: {status}", "api_key: env:NAME (--api-key here)")
    parts = urlsplit(base_url)
    if "HTTPS" in response.text and parts.scheme == "http":
        raise Unreachable("TLS", f"{status} {response.text[:200].strip()}", _other_scheme(base_url))
    for path in dict.fromkeys(("/v1", parts.path.rstrip("/") + "/v1", parts.path.removesuffix("/v1"), "")):
        other = urlunsplit(parts._replace(path=path))
        if other != base_url and models_in(await _get(client, f"{other}/models")) is not None:
            change = f"base_url: {other}"
            raise Unreachable("path", f"GET {base_url}/models: {status}, but {other}/models lists models", change)


async def _get(client: httpx.AsyncClient, url: str) -> httpx.Response:
    try:
        return await client.get(url, timeout=STEP_S)
    except httpx.HTTPError:
        return httpx.Response(599)
