"""What can be looked at: a URL with metrics, or an evaluation's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from nat_dynamo_plugin.cli.top.counts import Counts
from nat_dynamo_plugin.cli.top.journal import JournalSource
from nat_dynamo_plugin.cli.top.metrics import NoMetrics, counts_of

SCRAPE_S = 4.0


class NoSource(Exception):
    """Something that can not be looked at; the message says why not."""


@dataclass(frozen=True, slots=True)
class Source:
    """Something to look at.

    Attributes:
        name: what it is called, without secrets.
        look: what it says now. Raises `NoSource`.
    """

    name: str
    look: Callable[[], Counts]


def source_of(target: str) -> Source:
    """The source that a user means.

    Args:
        target: a URL, with `/v1` or without, or the folder of an evaluation.

    Raises:
        NoSource: it is neither.
    """
    if target.startswith(("http://", "https://")):
        return _url(target.rstrip("/"))
    path = Path(target)
    if not path.exists():
        raise NoSource(f"{target!r} is neither a URL nor a folder of an evaluation")
    journal = JournalSource(path)

    def look() -> Counts:
        try:
            return journal.counts()
        except OSError as error:
            raise NoSource(
                f"{error.filename}: {error.strerror}; is this the output folder of a `nat eval` with the plugin?"
            ) from None

    return Source(str(path), look)


def _url(target: str) -> Source:
    from nat_dynamo_plugin.cli.doctor.reach import without_login
    from nat_dynamo_plugin.config.url import checked_url

    try:
        checked_url("TARGET", target)
    except ValueError as error:
        raise NoSource(str(error)) from None
    shown, login = without_login(target)
    parts = urlsplit(shown)
    path = parts.path.removesuffix("/v1").removesuffix("/metrics")
    url = urlunsplit(parts._replace(path=f"{path}/metrics", query="", fragment=""))

    def look() -> Counts:
        import httpx

        try:
            response = httpx.get(url, auth=login, timeout=SCRAPE_S, follow_redirects=True)
            response.raise_for_status()
            return counts_of(response.text)
        except httpx.HTTPStatusError as error:
            raise NoSource(f"GET {url}: {error.response.status_code}: no metrics are there") from None
        except NoMetrics as error:
            raise NoSource(f"the metrics of {url} {error}") from None
        except (httpx.HTTPError, OSError) as error:
            raise NoSource(f"GET {url}: {error or type(error).__name__}") from None

    return Source(url, look)
