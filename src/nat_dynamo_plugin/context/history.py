"""The messages of a chat completion, and where its turns begin. No I/O in here; no byte of a message is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

SYSTEM = ("system", "developer")
_RESULTS = ("tool", "function")

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_messages = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode


class _Message(msgspec.Struct):
    role: str = ""


_message = msgspec.json.Decoder(_Message).decode


@dataclass(frozen=True, slots=True)
class History:
    """A conversation.

    A turn is an answer of the model with the results of the tools that it called, and the user's messages right before
    it; so between the steps of an agent that works on one question there are turns too.

    Attributes:
        messages: each as its caller wrote it.
        roles: theirs.
        head: so many messages always stay at the beginning: all to the first one of the user.
        starts: where turns begin behind the head, ascending.
    """

    messages: tuple[bytes, ...]
    roles: tuple[str, ...]
    head: int
    starts: tuple[int, ...]

    def cuttable(self, keep: int) -> tuple[int, ...]:
        """Where a cut may end so that the last `keep` turns (1 or more) stay, ascending."""
        return self.starts[: max(0, len(self.starts) - keep + 1)]

    def left_out(self, end: int) -> list[bytes]:
        """The messages that a cut to `end` takes out: all behind the head but the system's."""
        return [self.messages[at] for at in range(self.head, end) if self.roles[at] not in SYSTEM]

    def kept(self, end: int) -> list[bytes]:
        """The messages before `end` that such a cut leaves."""
        stay = [self.messages[at] for at in range(self.head, end) if self.roles[at] in SYSTEM]
        return [*self.messages[: self.head], *stay]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request.

    Attributes:
        members: those of the body, as their caller wrote them.
        history: its messages.
    """

    members: dict[str, msgspec.Raw]
    history: History

    def other_tokens(self, tokens: Callable[[bytes], float]) -> float:
        """What all but the messages takes, tools above all, by this estimate."""
        return sum(tokens(bytes(value)) for name, value in self.members.items() if name != "messages")

    def saying(self, messages: list[bytes]) -> bytes:
        """The body with these messages in place of its own; all other members keep their bytes and order."""
        return _encode({**self.members, "messages": msgspec.Raw(b"[" + b",".join(messages) + b"]")})


def read(body: bytes) -> Asked | None:
    """What a body asks; `None` if it is no chat completion."""
    try:
        members = _members(body)
        messages = tuple(bytes(one) for one in _messages(members["messages"]))
        roles = tuple(_message(one).role for one in messages)
    except (msgspec.DecodeError, KeyError, RecursionError):
        return None
    head = _head(roles)
    return Asked(members, History(messages, roles, head, _starts(roles, head)))


def _head(roles: tuple[str, ...]) -> int:
    if "user" in roles:
        return roles.index("user") + 1
    return next((at for at, role in enumerate(roles) if role not in SYSTEM), len(roles))


def _starts(roles: tuple[str, ...], head: int) -> tuple[int, ...]:
    starts: list[int] = []
    begun = "user" in roles[:head]  # whether a turn has begun that no answer belongs to yet
    for at in range(head, len(roles)):
        role = roles[at]
        if role in _RESULTS:
            if begun and starts:
                starts.pop()  # results of the answer before come after what the user said: that was no beginning
            begun = False
        elif role in ("user", "assistant"):
            if not begun:
                starts.append(at)
            begun = role == "user"
    return tuple(at for at in starts if at > head)
