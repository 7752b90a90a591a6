"""Headers as layers see and change them."""

from __future__ import annotations

from collections.abc import Iterator

RawHeaders = list[tuple[bytes, bytes]]


def raw_header(text: str | bytes) -> bytes:
    """A header's name or value as bytes.

    Raises:
        ValueError: it can not travel in a header.
    """
    data = text.encode("ascii") if isinstance(text, str) else text
    if any(byte < 0x20 or byte == 0x7F for byte in data) or data != data.strip():
        raise ValueError(f"{text!r} can not travel in a header: control characters, or blanks around it")
    return data


def number_in(text: str | None) -> float | None:
    """The number that a header's value is, 0 or more; `None` for anything else."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


class Headers:
    """Headers in order; names are found whatever their case.

    Attributes:
        raw: names and values as they go over the wire.
    """

    __slots__ = ("_names", "raw")

    def __init__(self, raw: RawHeaders) -> None:
        self.raw = raw
        self._names: list[bytes] | None = None

    @property
    def names(self) -> list[bytes]:
        """The names in lower case, in order."""
        if self._names is None:
            self._names = [name.lower() for name, _ in self.raw]
        return self._names

    def __contains__(self, name: str | bytes) -> bool:
        return (name.encode("ascii") if isinstance(name, str) else name).lower() in self.names

    def get(self, name: str | bytes) -> str | None:
        """The first value of this name, or `None`."""
        wanted = (name.encode("ascii") if isinstance(name, str) else name).lower()
        for (_, value), known in zip(self.raw, self.names, strict=True):
            if known == wanted:
                return value.decode("latin-1")
        return None

    def set(self, name: str | bytes, value: str | bytes) -> None:
        """Have this name once, with this value.

        Raises:
            ValueError: name or value can not travel in a header.
        """
        name, value = raw_header(name), raw_header(value)
        self.remove(name)
        self.names.append(name.lower())
        self.raw.append((name, value))

    def put(self, name: bytes, value: bytes) -> None:
        """Have this name, in lower case, with this value, which is known to be right, where it was before if it was."""
        names = self.names
        if name in names:
            at = names.index(name)
            self.raw[at] = (self.raw[at][0], value)
        else:
            names.append(name)
            self.raw.append((name, value))

    def extend(self, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """Add headers that are not there yet, with names in lower case and values that are known to be right."""
        self.names.extend([name for name, _ in headers])
        self.raw.extend(headers)

    def remove(self, name: str | bytes) -> None:
        """Have this name no more."""
        if name in self:
            wanted = (name.encode("ascii") if isinstance(name, str) else name).lower()
            self.raw = [header for header, known in zip(self.raw, self.names, strict=True) if known != wanted]
            self._names = None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw)
