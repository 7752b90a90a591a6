"""The secrets that this process knows, and texts without them: for every log, error, record and file of ours.

What is known is found in the forms in which it may come back too: escaped for JSON, a URL or HTML, in a `repr`, and cut
off at a text's end.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote

from pydantic import BaseModel, SecretStr

from nat_dynamo_plugin.nearest import MASK

LEAST_CHARS = 6
"""A shorter secret is none: words would vanish from texts."""
LEAST_VARIABLE_CHARS = 8
"""The same for what only its name makes a secret."""
MOST_PAST = 64
"""Keys remembered (each for whatever is still under way with it) after they were replaced."""
REFERENCES = ("env:", "file:")
"""What says where a key is, and is none itself."""
PLACEHOLDERS = frozenset(
    {"unused", "not-needed", "not-used", "no-key-required", "no-api-key", "placeholder", "dummy-key", "dummy-api-key"}
)
"""What is given for a key where none is wanted."""

_VARIABLE = re.compile(
    r"(.*_)?(API_?)?(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|PAT|AUTHORIZATION)S?(_?\d+)?", re.IGNORECASE
)
# Stricter than `nearest.is_secret`, which may hide too much of what is wrong: a dataset's `question_key` is none.
_FIELD = re.compile(
    r"api_?key|(access|private|secret|auth)_?(key|token)|passw|passphrase|secret|credential|authorization",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"(?:bearer|basic|token)\s+", re.IGNORECASE)
_USER_OF_URL = re.compile(r"[a-z][a-z0-9+.-]*://([^\s/?#@:]*(?::[^\s/?#]*)?)@", re.IGNORECASE)
_HEX = re.compile("%[0-9A-F]{2}")


def _json(text: str) -> str:
    return json.dumps(text)[1:-1]


_ESCAPES: tuple[Callable[[str], str], ...] = (
    _json,
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: text.replace("/", "\\/"),
    lambda text: repr(text)[1:-1],
    lambda text: repr(text + "'\"")[1:-4],  # within a text that has both quotes
    lambda text: repr(text.encode("utf-8", "surrogatepass"))[2:-1],
    html.escape,
    lambda text: quote(text, errors="replace"),
    lambda text: quote(text, safe="", errors="replace"),
    lambda text: quote_plus(text, errors="replace"),
    lambda text: _HEX.sub(lambda found: found[0].lower(), quote(text, safe="", errors="replace")),
)


@lru_cache(maxsize=256)
def forms_of(secret: str) -> frozenset[str]:
    """A secret as it is and escaped, once and twice over: an error text in JSON may hold another one."""
    forms = {secret}
    for _ in range(2):
        forms |= {escape(form) for form in forms for escape in _ESCAPES}
    return frozenset(form for form in forms if len(form) >= LEAST_CHARS)


class Secrets:
    """Secrets to be kept out of texts; may be used by all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, None] = {}
        self._past: deque[str] = deque(maxlen=MOST_PAST)
        self._forms: tuple[str, ...] = ()

    def remember(self, *secrets: str) -> None:
        """Keep these out of texts from now on; what is too short to be one, or only says where one is, is left."""
        new = [text for secret in secrets if is_secret_text(text := secret.strip()) and text not in self._known]
        if new:
            with self._lock:
                self._known.update(dict.fromkeys(new))
                self._sort()

    def in_text(self, text: str) -> list[str]:
        """Those that a text holds as they are, the longest first."""
        with self._lock:
            return sorted(
                (secret for secret in self._known if secret in text), key=lambda secret: (-len(secret), secret)
            )

    def retire(self, secret: str) -> None:
        """This one was replaced: the last `MOST_PAST` of such are still kept out."""
        with self._lock:
            if secret in self._known:
                del self._known[secret]
                self._past.append(secret)
                self._sort()

    def _sort(self) -> None:
        forms = {form for secret in (*self._known, *self._past) for form in forms_of(secret)}
        # The longest first, for one may be part of another.
        self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))

    def redacted(self, text: str) -> str:
        """The text with `***` for each secret, also for the first part of one that is cut off at the end."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        at = _cut_at(text, self._forms)
        return text if at is None else text[:at] + MASK

    def redacted_bytes(self, content: bytes) -> bytes:
        """As `redacted`, for text in UTF-8 or whatever has ASCII's letters."""
        if not self._forms:
            return content
        text = content.decode("utf-8", "surrogateescape")
        clean = self.redacted(text)
        return content if clean is text else clean.encode("utf-8", "surrogateescape")


def is_secret_text(text: str) -> bool:
    """Whether what is given for a key is one: no placeholder, and nothing that says where one is."""
    return len(text) >= LEAST_CHARS and text.lower() not in PLACEHOLDERS and not text.startswith(REFERENCES)


def _cut_at(text: str, forms: Iterable[str]) -> int | None:
    """Where the first part of a secret begins that the text ends with, if there is one."""
    for form in forms:
        tail = text[-len(form) :]
        at = tail.find(form[:LEAST_CHARS])
        while at >= 0:
            if form.startswith(tail[at:]):
                return len(text) - len(tail) + at
            at = tail.find(form[:LEAST_CHARS], at + 1)
    return None


known = Secrets()
"""Those of this process."""


def remember(*secrets: str) -> None:
    """Keep these out of every text that leaves us; see `Secrets.remember`."""
    known.remember(*secrets)


def redacted(text: str) -> str:
    """The text with `***` for each secret that this process knows."""
    return known.redacted(text)


def is_secret_variable(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return bool(_VARIABLE.fullmatch(name))


def remember_environment() -> None:
    """Keep out what the environment's secret variables hold now; not names of files, which say where a secret is."""
    for name, value in os.environ.items():
        text = value.strip()
        if is_secret_variable(name) and len(text) >= LEAST_VARIABLE_CHARS and not _is_file(text):
            known.remember(text)


def _is_file(text: str) -> bool:
    try:
        return text[0] in "/~." and Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def remember_config(config: Any) -> None:
    """Keep out the secrets of a config, and of the environment: pydantic's own, what fields of such names hold, and
    passwords in URLs."""
    remember_environment()
    known.remember(*_in(config, ""))


def _in(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, str):
        if _FIELD.search(name) and len(value) >= LEAST_VARIABLE_CHARS:
            yield _SCHEME.sub("", value.strip(), count=1)
        yield from _of_url(value)
    elif isinstance(value, BaseModel):
        for field, inner in value:  # extra fields too
            yield from _in(inner, field)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _in(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _in(inner, name)


def _of_url(text: str) -> Iterator[str]:
    """The passwords of URLs in a text, and what HTTP's basic authentication makes of them."""
    for found in _USER_OF_URL.finditer(text):
        user, colon, password = found[1].partition(":")
        if colon:
            plain = unquote(password)
            yield from (password, plain)
            yield base64.b64encode(f"{unquote(user)}:{plain}".encode()).decode()


def is_secret_value(text: str) -> bool:
    """Whether a value is a secret that this process knows, or a URL with a password."""
    return text.strip() in known.in_text(text) or any(_of_url(text))


def clean(error: BaseException) -> None:
    """Take the secrets out of an exception's arguments, and of those that it came from."""
    seen: set[int] = set()
    rest: list[BaseException | None] = [error]
    while rest:
        one = rest.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        args = tuple(_cleaned(arg) for arg in one.args)
        if any(new is not old for new, old in zip(args, one.args, strict=True)):
            one.args = args
        rest += (one.__cause__, one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ()))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        text = redacted(value)
        return value if text == value else text
    if isinstance(value, bytes):
        return known.redacted_bytes(value)
    return value


_made: dict[str, str] = {}


def variable_for(secret: str) -> str:
    """An environment variable that holds a secret, for a file that must not: `DYNAMO_API_KEY` if there is none yet.

    It is set in this process, so that the file can be read again here and by those that this process starts.
    """
    names = [name for name, value in os.environ.items() if value.strip() == secret]
    if found := next((name for name in names if is_secret_variable(name)), None):
        return found
    number, name = 1, "DYNAMO_API_KEY"
    while os.environ.get(name, "").strip():
        number += 1
        name = f"DYNAMO_{number}_API_KEY"
    os.environ[name] = _made[name] = secret
    return name


def made_variable(name: str) -> str | None:
    """The secret in clear that `variable_for` put into this variable, if it did."""
    secret = _made.get(name)
    return secret if secret == os.environ.get(name) else None


def with_variables(text: str) -> str:
    """A config's text with `${VARIABLE}`, which NAT replaces, for each secret in clear; see `variable_for`."""
    for secret in known.in_text(text):
        text = text.replace(secret, f"${{{variable_for(secret)}}}")
    return redacted(text)
