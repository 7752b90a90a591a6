"""Dialects: how a ServingPlan is said to a server. A dialect a file, each a pure function of the plan.

A third party adds one as an entry point in the group `nat_dynamo_plugin.dialects`, pointing at a `Dialect`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points

from nat_dynamo_plugin.dialects.fields import WireFields
from nat_dynamo_plugin.nearest import did_you_mean
from nat_dynamo_plugin.plan.serving import ServingPlan

Dialect = Callable[[ServingPlan], WireFields]
"""A pure function from a plan to headers and body fields."""

ENTRY_POINT_GROUP = "nat_dynamo_plugin.dialects"

BUILTIN: dict[str, str] = {
    "dynamo": "nat_dynamo_plugin.dialects.dynamo:say",
    "prefix_headers": "nat_dynamo_plugin.dialects.prefix_headers:say",
    "annotations": "nat_dynamo_plugin.dialects.nvext_annotations:say",
}
DEFAULT_WIRE: tuple[str, ...] = ("dynamo", "prefix_headers")


def _installed() -> dict[str, str]:
    return {entry.name: entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)} | BUILTIN


def check_dialects(names: Sequence[str]) -> None:
    """Raise `ValueError` for a dialect that is neither built in nor installed, naming the nearest one."""
    if all(name in BUILTIN for name in names):
        return
    known = _installed()
    for name in names:
        if name not in known:
            allowed = ", ".join(sorted(known))
            raise ValueError(f"prefix_wire={name!r} is no dialect; allowed are {allowed}{did_you_mean(name, known)}")


def load_dialects(names: Sequence[str]) -> tuple[Dialect, ...]:
    """Import the dialects of these names.

    Raises:
        ValueError: for an unknown name.
    """
    check_dialects(names)
    known = _installed()
    dialects: list[Dialect] = []
    for name in names:
        module, _, attribute = known[name].partition(":")
        dialects.append(getattr(import_module(module), attribute))
    return tuple(dialects)


__all__ = [
    "BUILTIN",
    "DEFAULT_WIRE",
    "ENTRY_POINT_GROUP",
    "Dialect",
    "WireFields",
    "check_dialects",
    "load_dialects",
]
