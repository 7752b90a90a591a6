"""Cells of the matrix that are not as they should be yet, and so are not run; the table says **no** there."""

from __future__ import annotations

OPEN: dict[str, tuple[str, ...]] = {}
"""Faults, and the columns that are open."""
