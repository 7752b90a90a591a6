from __future__ import annotations

import pytest

from nat_dynamo_plugin.nearest import did_you_mean, nearest_or_all, refuse_unknown_fields


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
