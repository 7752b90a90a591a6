"""A number, a level, auto or null: what is taken, and what an error says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_dynamo_plugin.config.values import value_of
from nat_dynamo_plugin.question.hints import PrefixLevel


@pytest.mark.parametrize(
    ("value", "options", "read"),
    [
        (8, {}, 8),
        (8.0, {}, 8),
        (" 8 ", {}, 8),
        ("08", {}, 8),
        (0, {"least": 0}, 0),
        (50, {"most": 50}, 50),
        (" Auto ", {"auto": True}, "auto"),
        (None, {"null": True}, None),
        ("low", {"levels": True}, PrefixLevel.LOW),
        (PrefixLevel.HIGH, {"levels": True}, PrefixLevel.HIGH),
        (900, {"levels": True}, 900),
    ],
)
def test_what_is_taken(value: object, options: dict[str, object], read: object) -> None:
    made = value_of("f", value, **options)  # type: ignore[arg-type]
    assert made == read and type(made) is type(read)


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (1.5, {}, "f=1.5 is not allowed: use a whole number of 1 or more; the nearest is 2"),
        (-3, {"least": 0}, "f=-3 is not allowed: use a whole number of 0 or more; the nearest is 0"),
        ("51", {"most": 50}, "f='51' is not allowed: use a whole number from 1 to 50; the nearest is 50"),
        ("auto", {}, "f='auto' is not allowed: use a whole number of 1 or more"),
        (None, {"auto": True}, "f=None is not allowed: use a whole number of 1 or more, or auto"),
        (True, {}, "f=True is not allowed: use a whole number of 1 or more"),
        (
            "big",
            {"levels": True, "auto": True, "null": True, "most": 9},
            "f='big' is not allowed: use LOW, MEDIUM, HIGH, or a whole number from 1 to 9, or auto, or null",
        ),
        (float("inf"), {}, "f=inf is not allowed: use a whole number of 1 or more"),
        (float("nan"), {"most": 9}, "f=nan is not allowed: use a whole number from 1 to 9"),
        (10**400, {"most": 9}, "f=10+ is not allowed: use a whole number from 1 to 9; the nearest is 9"),
        ("²", {}, "f='²' is not allowed: use a whole number of 1 or more"),
        ([], {}, r"f=\[\] is not allowed"),
    ],
)
def test_what_is_refused(value: object, options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}"):
        value_of("f", value, **options)  # type: ignore[arg-type]


@settings(deadline=None)
@given(value=st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()))
def test_whatever_is_written_is_a_number_in_the_range_or_a_value_error(value: object) -> None:
    try:
        made = value_of("f", value, most=50)
    except ValueError as error:
        assert "from 1 to 50" in str(error)
    else:
        assert isinstance(made, int) and 1 <= made <= 50
