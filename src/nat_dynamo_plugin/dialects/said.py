"""What a dialect says of a call: headers, members of the JSON body, or an edit of the body."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

Headers = tuple[tuple[bytes, bytes], ...]
Edit = Callable[[dict[str, Any]], None]
"""Changes a request's body, parsed from JSON, in place. Members it leaves alone keep their bytes."""


class Said(msgspec.Struct, frozen=True):
    """What is said of one call. Never changed once it is made.

    Attributes:
        headers: names in lower case, and values of printable ASCII.
        members: top-level members of the request's JSON body. They are merged with the caller's own, who wins.
        edit: for servers whose marks go inside what the caller sends; needs the body to be parsed, so it costs more.
        rests_on: headers of ours that mean nothing unless another one, named here, is ours too.
        encoded: the members as a JSON object, if somebody has made it already.
    """

    headers: Headers = ()
    members: Mapping[str, Any] = {}
    edit: Edit | None = None
    rests_on: Mapping[bytes, bytes] = {}
    encoded: bytes | None = None

    def headers_beside(self, callers: Collection[bytes]) -> Headers:
        """Our headers for a request that has some already: the caller wins.

        Args:
            callers: names of the request's own headers, in lower case.
        """
        for name, _ in self.headers:
            if name in callers:
                break
        else:
            return self.headers
        rests_on = self.rests_on
        return tuple((n, v) for n, v in self.headers if n not in callers and rests_on.get(n) not in callers)


def combined(sayings: Sequence[Said]) -> Said:
    """Several sayings as one, encoded. Of two headers of one name, and of two values of one member, the first is said.

    Raises:
        Exception: the members have no JSON.
    """
    headers: dict[bytes, bytes] = {}
    members: Mapping[str, Any] = {}
    rests_on: Mapping[bytes, bytes] = {}
    edits = []
    for said in sayings:
        for name, value in said.headers:
            headers.setdefault(name, value)
        if said.members:
            members = merged(said.members, members) if members else said.members
        if said.rests_on:
            rests_on = {**rests_on, **said.rests_on} if rests_on else said.rests_on
        if said.edit is not None:
            edits.append(said.edit)
    edit = _one_after_the_other(edits) if edits else None
    return Said(tuple(headers.items()), members, edit, rests_on, msgspec.json.encode(members))


def _one_after_the_other(edits: Sequence[Edit]) -> Edit:
    if len(edits) == 1:
        return edits[0]

    def edit(body: dict[str, Any]) -> None:
        for each in edits:
            each(body)

    return edit


def merged(ours: Mapping[str, Any], callers: Mapping[str, Any]) -> dict[str, Any]:
    """Two objects in one: objects in them are merged, lists joined, and for the rest the caller's value stands."""
    together = dict(callers)
    for name, value in ours.items():
        theirs = together.get(name)
        if name not in together:
            together[name] = value
        elif isinstance(value, Mapping) and isinstance(theirs, Mapping):
            together[name] = merged(value, theirs)
        elif isinstance(value, list) and isinstance(theirs, list):
            together[name] = [*theirs, *added_items(value, theirs)]
    return together


def added_items(ours: Sequence[Any], callers: Sequence[Any]) -> list[Any]:
    """Items of ours that a list of the caller's has not.

    One of ours gives way to one of the caller's with the same key, the text before the first colon: so are
    `nvext.annotations` made.
    """
    taken = {str(item).partition(":")[0] for item in callers}
    return [item for item in ours if str(item).partition(":")[0] not in taken]
