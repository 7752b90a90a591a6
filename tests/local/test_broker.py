"""The event plane's broker, which the supervisor runs: a KV event that got lost would mislead the router for good."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import zmq

from nat_dynamo_plugin.local import supervisor

EVENTS = 20_000
SIZE = 1_000
"""Bytes of an event: all of them are more than the kernel's socket buffers hold."""


def test_no_event_is_dropped_however_slow_a_reader_or_the_broker_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ZMQ's default marks of 1,000 a publisher is held up, and a reader that comes late has lost most."""
    may_forward = threading.Event()
    proxy = zmq.proxy

    def held_up(front: Any, back: Any) -> None:
        for _ in range(2):
            front.send(back.recv())  # the readers' subscriptions
        may_forward.wait()
        proxy(front, back)

    monkeypatch.setattr(zmq, "proxy", held_up)
    url = supervisor._start_broker()
    publish_to, read_from = (part.split("=")[1].strip() for part in url.split(","))
    with zmq.Context() as context:
        context.setsockopt(zmq.LINGER, 0)
        context.setsockopt(zmq.RCVTIMEO, 60_000)  # a lost event must not make a test that never ends
        context.setsockopt(zmq.SNDTIMEO, 60_000)
        with context.socket(zmq.XPUB) as publisher, context.socket(zmq.SUB) as quick, context.socket(zmq.SUB) as slow:
            publisher.setsockopt(zmq.SNDHWM, 10)
            publisher.setsockopt(zmq.XPUB_NODROP, 1)
            quick.setsockopt(zmq.RCVHWM, 0)
            slow.setsockopt(zmq.RCVHWM, 1)
            publisher.connect(publish_to)
            quick.connect(read_from)
            slow.connect(read_from)
            quick.subscribe(b"")
            slow.subscribe(b"event")
            assert {publisher.recv(), publisher.recv()} == {b"\x01", b"\x01event"}
            expected = [b"event %d" % number for number in range(EVENTS)]
            for event in expected:
                publisher.send(event.ljust(SIZE))
            may_forward.set()
            assert [quick.recv().rstrip() for _ in expected] == expected
            assert [slow.recv().rstrip() for _ in expected] == expected
