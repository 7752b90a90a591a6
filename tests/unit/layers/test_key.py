"""A session stays with its key while that is healthy; a refused one is read again, then the next is taken."""

from __future__ import annotations

import threading
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import chained, run
from nat_dynamo_plugin.http.headers import Headers
from nat_dynamo_plugin.layers.key import MAX_SESSIONS, OUT_S, PLACEHOLDER, KeyLayer, KeyRing, key_layer
from nat_dynamo_plugin.layers.key_sources import ClearKey
from nat_dynamo_plugin.layers.redirect import RedirectLayer

ORIGIN = "http://127.0.0.1:8000"


class FakeSource:
    """A source whose key is changed by the test; the change is seen when it is read again."""

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.there = self._seen = key
        self.reads = 0

    def value(self) -> str:
        return self._seen

    def reread(self) -> str:
        self.reads += 1
        self._seen = self.there
        return self._seen


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Provider:
    """Takes the keys that it knows; keeps the keys that came."""

    def __init__(self, *good: str, status: int = 401) -> None:
        self.good = set(good)
        self.status = status
        self.came: list[str | None] = []
        self.answers = 0

    def __call__(self, call: Call) -> Reply:
        given = call.headers.get("authorization")
        key = None if given is None else given.removeprefix("Bearer ")
        self.came.append(key)
        self.answers += 1
        if key in self.good:
            return Reply.made(200, b"well")
        return Reply.made(self.status, b"refused %d" % self.answers)


def keys(*names: str) -> list[FakeSource]:
    return [FakeSource(f"env:{name}", f"{name}1") for name in names]


def asked_by(call: Call, session: str | None) -> Call:
    if session is not None:
        call.turn = SimpleNamespace(identity=SimpleNamespace(session_id=session))  # type: ignore[assignment]
    return call


def layer_of(*sources: Any, clock: Any = None) -> KeyLayer:
    return KeyLayer(KeyRing(sources, clock or Clock()), ORIGIN)


@pytest.mark.parametrize("given", [None, "Bearer unused"])
@pytest.mark.parametrize("source", [FakeSource("env:a", "a1"), ClearKey("a1")])
def test_the_key_is_put_in(drive: Any, scripted: Any, given: str | None, source: Any) -> None:
    provider = Provider("a1")
    headers = {"x": "1", "Authorization": given, "y": "2"} if given else {"x": "1"}
    call = drive.call(headers)
    assert drive(layer_of(source), scripted(provider), call).status == 200
    assert provider.came == ["a1"] and list(dict(call.headers))[:2] == [
        "x",
        "Authorization" if given else "authorization",
    ]


@pytest.mark.parametrize("given", ["Bearer sk-of-the-caller", "Basic YTpi"])
def test_the_callers_own_stays(drive: Any, scripted: Any, given: str) -> None:
    provider = Provider("a1")
    drive(layer_of(*keys("a")), scripted(provider), drive.call({"authorization": given}))
    assert provider.came == [given.removeprefix("Bearer ")]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/v1", "https://127.0.0.1:8000/v1", "http://other:8000/v1"])
def test_no_other_origin_gets_it(drive: Any, scripted: Any, url: str) -> None:
    provider, layer = Provider(), layer_of(*keys("a", "b"))
    drive(layer, scripted(provider), drive.call({"authorization": "Bearer unused"}, url=url))
    drive(layer, scripted(provider), drive.call(url=url))
    assert provider.came == ["unused", None]
    assert layer.header_for(url, None) is None and layer.header_for(f"{ORIGIN}/v1/models", "Bearer mine") is None
    assert layer.header_for(f"{ORIGIN}/v1/models", "Bearer unused") == b"Bearer a1"


@pytest.mark.parametrize(
    ("origin", "url"),
    [("http://HOST:80", "http://host/v1"), ("https://bücher.example", "https://xn--bcher-kva.example:443/v1")],
)
def test_one_server_however_it_is_spelt(drive: Any, scripted: Any, origin: str, url: str) -> None:
    provider = Provider("a1")
    drive(KeyLayer(KeyRing(keys("a")), origin), scripted(provider), drive.call(url=url))
    assert provider.came == ["a1"]


def test_behind_a_redirect_there_is_no_key_the_next_time_either(drive: Any, scripted: Any) -> None:
    layer = layer_of(*keys("a", "b"))
    provider = Provider("a1")
    away = Reply.made(307, b"", {"location": "http://elsewhere/v1"})
    server = scripted(lambda call: away if provider(call) and call.origin == ORIGIN else Reply.made(401, b"no"))
    call = drive.call()
    both = SimpleNamespace(flow=lambda call, send: layer.flow(call, partial(RedirectLayer().flow, send=send)))
    for _ in range(2):  # the second time is a retry of the whole
        assert drive(both, server, call).status == 401
    assert provider.came == ["a1", None, None]


@pytest.mark.parametrize("status", [401, 403])
def test_a_rotated_key_is_read_again_and_sent_again(drive: Any, scripted: Any, status: int) -> None:
    (source,) = keys("a")
    layer, provider, server = layer_of(source), Provider("a1", status=status), None
    server = scripted(provider)
    drive(layer, server)
    source.there, provider.good = "a2", {"a2"}
    assert drive(layer, server).status == 200 and drive(layer, server).status == 200
    assert provider.came == ["a1", "a1", "a2", "a2"] and len(server.closed) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_the_next_key_is_taken_and_the_first_left_alone_for_a_while(drive: Any, scripted: Any, status: int) -> None:
    a, b = keys("a", "b")
    clock, provider = Clock(), Provider("b1", status=status)
    layer, server = layer_of(a, b, clock=clock), scripted(provider)
    assert [drive(layer, server).status for _ in range(3)] == [200] * 3
    assert provider.came == ["a1", "b1", "b1", "b1"] and (a.reads, b.reads) == (1, 1)
    clock.now += OUT_S
    provider.good = {"a1", "b1"}
    drive(layer, server)
    assert provider.came[-1] == "a1"


def test_all_refused_is_the_last_ones_answer(drive: Any, scripted: Any) -> None:
    layer, provider = layer_of(*keys("a", "b", "c")), Provider()
    server = scripted(provider)
    reply = drive(layer, server)
    assert (reply.status, reply.content) == (401, b"refused 3") and provider.came == ["a1", "b1", "c1"]
    assert len(server.closed) == 2 and reply not in server.closed
    # From then on one request a call, for none is any good; and whatever becomes good is found.
    drive(layer, server)
    assert provider.came[3:] == ["a1"]


def test_a_403_that_all_keys_get_is_about_the_call(drive: Any, scripted: Any) -> None:
    layer, provider = layer_of(*keys("a", "b")), Provider(status=403)
    server = scripted(provider)
    assert drive(layer, server).content == b"refused 2"
    provider.good = {"a1", "b1"}
    drive(layer, server)
    assert provider.came == ["a1", "b1", "a1"]


@pytest.mark.parametrize("status", [429, 500, 503, 200, 404])
def test_nothing_else_switches(drive: Any, scripted: Any, status: int) -> None:
    a, b = keys("a", "b")
    layer, provider = layer_of(a, b), Provider(status=status)
    server = scripted(provider)
    drive(layer, server), drive(layer, server)
    assert provider.came == ["a1", "a1"] and a.reads == 0


def test_a_session_keeps_its_key(drive: Any, scripted: Any) -> None:
    clock, provider = Clock(), Provider("b1")
    layer, server = layer_of(*keys("a", "b"), clock=clock), scripted(provider)

    def ask(session: str) -> str | None:
        drive(layer, server, asked_by(drive.call(), session))
        return provider.came[-1]

    assert ask("one") == "b1"
    clock.now += OUT_S
    provider.good = {"a1", "b1"}
    # The first key is good again: for new sessions.
    assert [ask(session) for session in ("two", "one", "two", "one")] == ["a1", "b1", "a1", "b1"]
    provider.good = {"a1"}
    assert [ask(session) for session in ("one", "one")] == ["a1", "a1"]


def test_sessions_are_bounded() -> None:
    ring = KeyRing(keys("a", "b"), Clock())
    for k in range(MAX_SESSIONS + 10):
        ring.stay(str(k), 1)
    assert len(ring._of) == MAX_SESSIONS and ring.of("0").index == 0 and ring.of(str(MAX_SESSIONS)).index == 1


def test_a_key_that_was_out_and_rotated_is_taken_at_once(drive: Any, scripted: Any) -> None:
    a, b = keys("a", "b")
    layer, provider = layer_of(a, b), Provider("b1")
    server = scripted(provider)
    drive(layer, server)
    provider.good = {"a2"}
    a._seen = a.there = "a2"  # as a file is, which is looked at by itself
    drive(layer, server)
    assert provider.came == ["a1", "b1", "a2"]


def test_calls_under_way_during_a_rotation(scripted: Any) -> None:
    # All that were sent with the old key are refused, and each is sent again once.
    (source,) = keys("a")
    layer, provider, both = layer_of(source), Provider("a2"), threading.Barrier(8)
    source.there = "a2"

    def answer(call: Call) -> Reply:
        reply = provider(call)
        if call.headers.get("authorization") == "Bearer a1":
            both.wait(60)
        return reply

    statuses: list[int] = []

    def ask() -> None:
        call = Call(SimpleNamespace(method="POST", url=f"{ORIGIN}/v1"), "chat_completions", Headers([]), b"")
        statuses.append(run(chained([layer])(call), scripted(answer)).status)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8 and sorted(str(key) for key in provider.came) == ["a1"] * 8 + ["a2"] * 8


def test_a_switch_is_said_without_the_key(drive: Any, scripted: Any, caplog: pytest.LogCaptureFixture) -> None:
    drive(layer_of(*keys("first", "second")), scripted(Provider("second1")))
    assert "127.0.0.1:8000 answers 401 to the key of env:first; the call goes on with that of env:second" in caplog.text
    assert "first1" not in caplog.text


def test_a_key_in_clear_is_warned_of_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nat_dynamo_plugin.question.once._said", set())
    for _ in range(3):
        assert key_layer(["sk-canary-of-clear"], ORIGIN) is not None
    assert caplog.text.count("stands in clear") == 1 and "env:OPENAI_API_KEY" in caplog.text
    assert "canary" not in caplog.text


def test_no_key_is_no_layer(caplog: pytest.LogCaptureFixture) -> None:
    assert key_layer([], ORIGIN) is None and key_layer([PLACEHOLDER], ORIGIN) is None
    assert not caplog.records


def test_a_missing_source_is_named() -> None:
    with pytest.raises(ValueError, match=r"^api_key=env:NO_SUCH_KEY_AT_ALL: the environment variable is not set"):
        key_layer(["env:NO_SUCH_KEY_AT_ALL"], ORIGIN)
