"""Limits that the config and what acts on it share. Apart, since every `nat` command imports the config."""

from __future__ import annotations

MIN_ROUNDS = 3
"""Rounds of finals without which there is no verdict: from two, an interval says next to nothing."""

MIN_TO_SPLIT = 20
"""Questions without which a dataset is not split between search and finals: either part would say too little."""
