"""The org of a call, and what stands for it outside."""

from __future__ import annotations

import pytest

from nat_dynamo_plugin.question.org import ORG_KEY, current_org, org_digest, org_scope


def test_scopes_nest_and_restore():
    assert current_org() is None
    with org_scope(" acme "):
        assert current_org() == "acme"
        with org_scope("other"):
            assert current_org() == "other"
        assert current_org() == "acme"
    assert current_org() is None


@pytest.mark.parametrize("org", ["", "  ", None, 3])
def test_an_org_has_a_name(org):
    with pytest.raises(ValueError, match="use a non-empty string"), org_scope(org):
        pass


def test_the_digest_hides_the_name_and_depends_on_the_key(monkeypatch):
    monkeypatch.delenv(ORG_KEY, raising=False)
    plain = org_digest("acme")
    assert len(plain) == 32 and "acme" not in plain
    assert plain == org_digest("acme") != org_digest("acme2")
    monkeypatch.setenv(ORG_KEY, "a secret")
    assert org_digest("acme") != plain
