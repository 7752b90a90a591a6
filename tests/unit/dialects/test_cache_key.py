from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.dialects.test_dialects import a_plan

from nat_dynamo_plugin.dialects.cache_key import MAX_CHARS, MAX_SHARDS, Shards, cache_key, key_of
from nat_dynamo_plugin.question.org import ORG_KEY, org_scope


@given(st.text(min_size=1), st.none() | st.text(min_size=1), st.text(min_size=1), st.none() | st.text(min_size=1))
def test_a_key_is_short_and_another_one_for_each_question_and_org(
    prefix: str, org: str | None, other: str, other_org: str | None
) -> None:
    key = cache_key(prefix, org)
    assert key.isascii() and key.startswith("nat-") and len(f"{key}-{MAX_SHARDS}") <= MAX_CHARS
    assert (key == cache_key(other, other_org)) == ((prefix, org) == (other, other_org))


def test_the_ends_of_org_and_prefix_can_not_be_moved() -> None:
    assert cache_key("bc", "a") != cache_key("c", "ab")
    assert cache_key("x", None) != cache_key("x", "")


def test_the_secret_of_orgs_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without = cache_key("q", "acme")
    monkeypatch.setenv(ORG_KEY, "secret")
    assert cache_key("q", "acme") != without


def test_the_key_is_that_of_the_question_and_of_the_org_at_hand() -> None:
    plan, shards = a_plan(), Shards()
    assert key_of(plan, shards) == cache_key("q 1", None)
    with org_scope("acme"):
        assert key_of(plan, shards) == cache_key("q 1", "acme")


class TestShards:
    def test_a_session_stays_however_fast_it_is(self) -> None:
        shards = Shards(calls_a_minute=3, clock=lambda: 0.0)
        assert {shards.shard("k", "s") for _ in range(50)} == {0}

    def test_new_sessions_of_a_hot_key_go_elsewhere_and_old_ones_stay(self) -> None:
        shards = Shards(calls_a_minute=3, clock=lambda: 0.0)
        assert [shards.shard("k", f"s{n}") for n in range(7)] == [0, 0, 0, 1, 1, 1, 2]
        assert [shards.shard("k", f"s{n}") for n in range(7)] == [0, 0, 0, 1, 1, 1, 2]
        assert shards.shard("another", "s") == 0

    def test_a_key_that_has_cooled_takes_sessions_again(self) -> None:
        now = [0.0]
        shards = Shards(calls_a_minute=2, clock=lambda: now[0])
        assert [shards.shard("k", f"s{n}") for n in range(3)] == [0, 0, 1]
        now[0] = 59.9
        assert shards.shard("k", "a") == 1
        now[0] = 60.0
        assert shards.shard("k", "b") == 0

    def test_there_are_only_so_many(self) -> None:
        shards = Shards(calls_a_minute=1, clock=lambda: 0.0)
        assert max(shards.shard("k", f"s{n}") for n in range(3 * MAX_SHARDS)) == MAX_SHARDS - 1

    def test_a_hot_key_says_its_shard(self) -> None:
        shards = Shards(calls_a_minute=1, clock=lambda: 0.0)
        first = a_plan()
        second = a_plan(identity=first.identity._replace(session_id="another"))
        assert key_of(first, shards) == cache_key("q 1", None)
        assert key_of(second, shards) == cache_key("q 1", None) + "-1"
