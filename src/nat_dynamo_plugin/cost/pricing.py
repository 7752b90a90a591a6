"""Pricing: what a call costs, by the first source that knows. Sources are asked in order, and none guesses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fnmatch import fnmatchcase

from nat_dynamo_plugin.cost import table
from nat_dynamo_plugin.cost.prices import Prices, Unpriced
from nat_dynamo_plugin.question.once import warn_once
from nat_dynamo_plugin.telemetry.record import CallRecord

logger = logging.getLogger(__name__)

PROVIDER, PRICES, GPU, CACHE = "provider", "prices", "gpu_hour_usd", "cache"
"""What `CallRecord.cost_source` says, besides the table's name with its version."""

Cost = tuple[float, str]
"""USD, and the source that said it."""


class Pricing:
    """Says what the tokens of a call cost.

    Args:
        prices: the user's, by model; `*` stands for any characters, and the first name that fits counts.
        use_table: whether `genai-prices` is asked where the user has no price.
        table_provider: the provider there; `None` to go by the server's URL.
        table_model: the model there; `None` for the call's.
    """

    def __init__(
        self,
        prices: Mapping[str, Prices] | None = None,
        *,
        use_table: bool = True,
        table_provider: str | None = None,
        table_model: str | None = None,
    ) -> None:
        self._prices = dict(prices or {})
        self._use_table = use_table and table.is_installed()
        self._table_provider = table_provider
        self._table_model = table_model

    def of(self, record: CallRecord, *, quiet: bool = False) -> Cost | None:
        """What the tokens in this record cost; `None` if nobody knows, which is logged once unless `quiet`."""
        if record.reported_usd is not None:
            return record.reported_usd, PROVIDER
        asked, answered = record.request_model or "", record.model or ""
        why = "nothing has a price for it"
        try:
            prices = self._users(answered) or self._users(asked)
            if prices is not None:
                return prices.cost_usd(record), PRICES
            if self._use_table:
                found = table.priced(record, self._table_provider, self._table_model)
                return found.usd, found.source
        except Unpriced as error:
            why = str(error)
        if not quiet:
            name = answered or asked or "a model"
            warn_once(logger, ("cost", name, why), "Calls of %s go without a cost: %s", name, why)
        return None

    def _users(self, model: str) -> Prices | None:
        return next((one for name, one in self._prices.items() if model and fnmatchcase(model, name)), None)
