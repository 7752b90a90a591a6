"""Who says which org a call is for, and what of it leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from nat.builder.context import ContextState

from nat_dynamo_plugin import org_digest, org_scope
from nat_dynamo_plugin.http.call import Reply
from nat_dynamo_plugin.layers.org import OrgLayer


@pytest.fixture
def request_headers() -> Iterator[dict[str, str]]:
    """Headers of the request that NAT is answering, of the user u-7."""
    state, headers = ContextState.get(), {"x-org": " header-org "}
    metadata, user = state.metadata.set(SimpleNamespace(headers=headers)), state.user_id.set("u-7")
    yield headers
    state.metadata.reset(metadata)
    state.user_id.reset(user)


def asked(drive: Any, scripted: Any, layer: OrgLayer, headers: dict[str, str] | None = None) -> Any:
    """The call and what was sent of it."""
    server, call = scripted(Reply.made(200, b"{}")), drive.call(headers)
    reply = drive(layer, server, call)
    return SimpleNamespace(record=call.record, headers=server.sent[0]["headers"] if server.sent else None, reply=reply)


def test_the_first_that_says_so_counts(drive: Any, scripted: Any, request_headers: dict[str, str]) -> None:
    layer = OrgLayer("x-org", user=True, default="rest")

    def org() -> str | None:
        done = asked(drive, scripted, layer)
        assert done.headers == {"x-tenant-id": done.record.org}
        named = {org_digest(name): name for name in ("scope-org", "header-org", "u-7", "rest")}
        return named[done.record.org]

    with org_scope("scope-org"):
        assert org() == "scope-org"
    assert org() == "header-org"
    request_headers["x-org"] = " "
    assert org() == "u-7"
    ContextState.get().user_id.set(None)
    assert org() == "rest"
    del request_headers["x-org"]
    assert asked(drive, scripted, OrgLayer("x-org", user=True)).record.org is None
    assert asked(drive, scripted, OrgLayer("x-org")).headers == {}


def test_what_is_not_asked_for_is_not_looked_at(drive: Any, scripted: Any, request_headers: dict[str, str]) -> None:
    assert asked(drive, scripted, OrgLayer()).record.org is None
    assert asked(drive, scripted, OrgLayer("x-other")).record.org is None


def test_no_two_orgs_have_one_salt_whatever_salt_there_was(drive: Any, scripted: Any) -> None:
    salts = set()
    for org in ("a", "b"):
        for given in (None, {"X-Tenant-Id": "bench"}):
            with org_scope(org):
                done = asked(drive, scripted, OrgLayer(), given)
            [salt] = [value for name, value in done.headers.items() if name.lower() == "x-tenant-id"]
            assert salt.endswith(org_digest(org)) and salt.startswith("bench." if given else org_digest(org))
            salts.add(salt)
    assert len(salts) == 4


def test_a_call_of_no_org_is_refused_where_one_is_required(drive: Any, scripted: Any) -> None:
    done = asked(drive, scripted, OrgLayer(required=True))
    assert done.reply.status == 403 and "org_scope" in json.loads(done.reply.content)["error"]["message"]
    assert done.headers is None and done.record.error_type == "org_unknown"
    with org_scope("a"):
        assert asked(drive, scripted, OrgLayer(required=True)).reply.status == 200
    assert asked(drive, scripted, OrgLayer(required=True, default="b")).record.org == org_digest("b")
