from __future__ import annotations

import pytest

from nat_dynamo_plugin.nearest import MASK, did_you_mean, hidden, nearest_or_all, refuse_unknown_fields, shown


def test_the_nearest_name_or_all_of_them() -> None:
    assert did_you_mean("worker", ["workers", "speedup"]) == "; did you mean workers?"
    assert did_you_mean("zzz", ["workers"]) == ""
    assert nearest_or_all("worker", ["workers", "speedup"]) == "did you mean workers?"
    assert nearest_or_all("zzz", ["workers", "speedup"]) == "known are workers, speedup"
    assert nearest_or_all("zzz", []) == "known are none"


def test_an_unknown_field_is_refused_with_its_value() -> None:
    with pytest.raises(ValueError, match=r"worker=2: `local` has no such field; did you mean workers\?"):
        refuse_unknown_fields({"worker": 2}, ["workers"], "`local`")


@pytest.mark.parametrize("data", [{"workers": 2}, {"_type": "x", "type": "y"}, {}, None, "text"])
def test_what_is_known_passes(data: object) -> None:
    refuse_unknown_fields(data, ["workers", "type"], "`local`")


def test_only_a_component_has_a_type() -> None:
    with pytest.raises(ValueError, match="_type='x': `local` has no such field"):
        refuse_unknown_fields({"_type": "x"}, ["workers"], "`local`")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", "abc"),
        ("openai_api_key", "abc"),
        ("nvext_api_key", "abc"),
        ("api_kye", "abc"),
        ("HF_TOKEN", "abc"),
        ("accessToken", "abc"),
        ("Authorization", "abc"),
        ("db_password", "abc"),
        ("passwd", 12345),
        ("client_secret", "abc"),
        ("api_key", 12345),
        ("keys", ["abc"]),
    ],
)
def test_a_secret_is_not_shown(name: str, value: object) -> None:
    assert "abc" not in shown(name, value) and "12345" not in shown(name, value)
    assert shown(name, value).startswith(f"{name}=") and MASK in shown(name, value)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("max_token", 5, "max_token=5"),
        ("temperatur", 0.5, "temperatur=0.5"),
        ("author", "Ann", "author='Ann'"),
        ("api_type", "chat", "api_type='chat'"),
        ("monkey", "see", "monkey='see'"),
        ("token", None, "token=None"),
        ("auth", True, "auth=True"),
        ("url", "http://host:8000/v1", "url='http://host:8000/v1'"),
    ],
)
def test_what_is_no_secret_is_shown(name: str, value: object, text: str) -> None:
    assert shown(name, value) == text


@pytest.mark.parametrize(
    "text",
    [
        "sk-1234567890",
        "a sk-proj-1234567890",
        "nvapi-1234567890",
        "hf_1234567890",
        "ghp_1234567890",
        "Bearer 1234567890",
    ],
)
def test_a_key_is_known_by_its_form(text: str) -> None:
    assert "1234567890" not in shown("anything", text)


@pytest.mark.parametrize(
    "url",
    [
        "http://ann:hunter2@host/v1",
        "https://:hunter2@host",
        "ann:hunter2@host",
        "http://ann:hun/ter2@host",
        "x://hunter2@h",
    ],
)
def test_the_user_of_a_url_is_not_shown(url: str) -> None:
    text = shown("base_url", url)
    assert "hunter2" not in text and "ter2" not in text and "h" in text.rpartition("@")[2]


def test_what_a_mapping_or_list_holds_is_hidden_by_its_own_name() -> None:
    given = {
        "headers": {"Authorization": "abc", "accept": "json"},
        "password": {"deep": ["abc"]},
        "list": ["sk-123456"],
    }
    assert hidden(given) == {
        "headers": {"Authorization": MASK, "accept": "json"},
        "password": {"deep": [MASK]},
        "list": [MASK],
    }
    assert given["headers"] == {"Authorization": "abc", "accept": "json"}


def test_an_unknown_field_is_named_without_its_secret() -> None:
    with pytest.raises(ValueError) as caught:
        refuse_unknown_fields({"api_kye": "sk-1234567890"}, ["api_key"], "`x`")
    assert str(caught.value) == "api_kye='***': `x` has no such field; did you mean api_key?"
