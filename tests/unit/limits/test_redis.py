"""Counts that processes share in a real Redis."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from nat_dynamo_plugin.limits.ledger import REDIS_TIMEOUT_S, Reserved, Short, redis_ledger
from nat_dynamo_plugin.limits.rules import Charge, Rule

from ..redis_server import RedisServer, needs_redis

pytestmark = needs_redis
TOKENS = Rule("tokens", 1000, 3600)

PROCESS = """
import json, sys
from nat_dynamo_plugin.limits.ledger import Reserved, redis_ledger
from nat_dynamo_plugin.limits.rules import Charge, Rule
rule = Rule("tokens", 1000, 3600)
ledger = redis_ledger(sys.argv[1], "s")
taken = [ledger.take([Charge(rule, "", 30)]) for _ in range(50)]
for one in taken:
    if isinstance(one, Reserved):
        ledger.settle(one, [Charge(rule, "", 35)])
ledger.settled()
print(json.dumps(sum(isinstance(one, Reserved) for one in taken)))
"""


def test_two_processes_take_of_one_count(redis_server: RedisServer) -> None:
    command = [sys.executable, "-c", PROCESS, redis_server.url]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    taken = [json.loads(one.communicate()[0]) for one in running]
    # 30 are reserved and 35 used: what one has settled, the other one no longer gets.
    assert 28 <= sum(taken) <= 33
    ledger = redis_ledger(redis_server.url, "s")
    assert isinstance(ledger.take([Charge(TOKENS, "", 30)]), Short)
    other = redis_ledger(redis_server.url, "another server")
    assert isinstance(other.take([Charge(TOKENS, "", 30)]), Reserved)


def test_what_is_given_back_can_be_taken(redis_server: RedisServer) -> None:
    ledger = redis_ledger(redis_server.url, "s")
    taken = ledger.take([Charge(TOKENS, "", 1000)])
    assert isinstance(taken, Reserved) and isinstance(ledger.take([Charge(TOKENS, "", 900)]), Short)
    ledger.settle(taken, [Charge(TOKENS, "", 100)])
    ledger.settled()
    assert isinstance(ledger.take([Charge(TOKENS, "", 900)]), Reserved)


def test_a_frozen_redis_lets_calls_pass_after_one_timeout(redis_server: RedisServer) -> None:
    ledger = redis_ledger(redis_server.url, "s")
    redis_server.freeze()
    began = time.monotonic()
    answers = [ledger.take([Charge(TOKENS, "", 600)]) for _ in range(1000)]
    took = time.monotonic() - began
    redis_server.thaw()
    assert all(isinstance(one, Reserved) for one in answers)
    # Connection and answer may each take a timeout; all further calls find the way open at once.
    assert took < 100 * REDIS_TIMEOUT_S
