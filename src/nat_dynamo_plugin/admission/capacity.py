"""How many tokens the KV caches of a cluster hold, as its Dynamo frontend says."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from time import monotonic
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

import httpx

from nat_dynamo_plugin.locks import Lock, after_fork

logger = logging.getLogger(__name__)

BLOCKS_METRIC = "dynamo_frontend_model_total_kv_blocks"
BLOCK_SIZE_METRIC = "dynamo_frontend_model_kv_cache_block_size"
TIMEOUT_S = 2.0
EVERY_S = 1.0
"""Seconds between two times a frontend is asked, while calls are made; twice as many after each time in vain."""
LONGEST_PAUSE_S = 300.0


def worker_tokens(metrics: str, model: str) -> int | None:
    """Tokens that the KV cache of one worker holds; `None` if the frontend does not say.

    Args:
        metrics: the frontend's `/metrics`, Prometheus text.
        model: the model's name.
    """
    label = f'model="{model}"'
    values = {}
    for line in metrics.splitlines():
        name, _, rest = line.partition("{")
        labels, _, value = rest.rpartition("}")
        if name in (BLOCKS_METRIC, BLOCK_SIZE_METRIC) and label in labels.split(","):
            values[name] = float((value.split() or ["0"])[0])
    return int(values.get(BLOCKS_METRIC, 0.0) * values.get(BLOCK_SIZE_METRIC, 0.0)) or None


def count_workers(health: object) -> int:
    """Workers of a frontend's `/health`: it lists an instance of the endpoint `generate` for each.

    A prefill worker's cache holds prompts only until they are handed over, so the largest component counts alone.
    """
    instances = health.get("instances") if isinstance(health, dict) else None
    components = Counter(
        (instance.get("namespace"), instance.get("component"))
        for instance in instances or ()
        if isinstance(instance, dict) and instance.get("endpoint") == "generate"
    )
    return max(components.values(), default=0)


class CapacityProbe:
    """Asks a frontend in a thread of its own, so that no call waits for it, and again as long as calls are made.

    It goes the way that calls go: with the environment's proxies and certificates, and with the user that the URL
    names.

    Args:
        model: the model's name.
        told: called with the tokens that the caches of all workers hold, and with how many workers there are, in that
            thread, whenever there is an answer.
        verify: whether TLS certificates are checked.
    """

    def __init__(self, model: str, told: Callable[[int, int], None], *, verify: bool = True) -> None:
        self._model = model
        self._told = told
        self._verify = verify
        self._lock = Lock()
        self._asking = False
        self._next = 0.0
        self._misses = 0
        self._worker_tokens: int | None = None
        after_fork(self, CapacityProbe._reset)

    def _reset(self) -> None:
        self._asking = False  # the thread that asks is the parent's

    def called(self, url: str) -> None:
        """A call goes to this URL of an API: ask the frontend that serves it, if it is time to."""
        if self._asking or monotonic() < self._next:
            return
        with self._lock:
            if self._asking:
                return
            self._asking = True
        try:
            threading.Thread(target=self._ask, args=(url,), name="dynamo-capacity", daemon=True).start()
        except RuntimeError:  # no more threads; the call goes on
            self._asking = False

    def _ask(self, url: str) -> None:
        try:
            self._ask_once(url)
        finally:
            # 2 ** 16 s is beyond the longest pause, and a float does not hold every power of two.
            self._next = monotonic() + min(EVERY_S * 2.0 ** min(self._misses, 16), LONGEST_PAUSE_S)
            self._asking = False

    def _ask_once(self, url: str) -> None:
        root = "The server"
        try:
            root, auth = _frontend(url)
            tokens, workers = self._capacity(root, auth)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            logger.debug("The KV capacity of %s could not be read: %s", root, error)
            tokens = workers = 0
        if tokens:
            self._misses = 0
            self._told(tokens, workers)
        else:
            self._misses += 1
            if self._misses == 1:
                logger.info(
                    "%s does not say how many tokens its KV caches hold, as /metrics and /health of a Dynamo frontend "
                    "do; max_active_prefixes: auto holds nothing back without knowing",
                    root,
                )

    def _capacity(self, root: str, auth: tuple[str, str] | None) -> tuple[int, int]:
        """Tokens of all workers' caches, and workers; 0 if the frontend does not say.

        Raises:
            httpx.HTTPError: it can not be reached, or has no such page.
            OSError: certificates that the environment names can not be read.
            ValueError: the page is none of a frontend's.
        """
        # Reading certificates takes tens of ms, so only where they are needed.
        verify = self._verify and (root.startswith("https:") or bool(getproxies()))
        with httpx.Client(base_url=root, timeout=TIMEOUT_S, verify=verify, auth=auth) as client:
            if self._worker_tokens is None:  # a long page, and a worker's cache does not change
                self._worker_tokens = worker_tokens(client.get("/metrics").raise_for_status().text, self._model)
            if self._worker_tokens is None:
                return 0, 0
            workers = count_workers(client.get("/health").raise_for_status().json())
            return self._worker_tokens * workers, workers


def _frontend(url: str) -> tuple[str, tuple[str, str] | None]:
    """The frontend that serves a call's URL, and apart from it the user and password that the URL names.

    Raises:
        ValueError: it is no URL.
    """
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    root = f"{parts.scheme}://{host}{parts.path.rpartition('/v1/')[0]}"
    return root, (unquote(name), unquote(password)) if user else None
