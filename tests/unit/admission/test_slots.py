"""Slots: never more than there are, in the order in which calls were made, in threads and in event loops alike."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable

import pytest

from nat_dynamo_plugin.admission.concurrency import ConcurrencyLimit
from nat_dynamo_plugin.admission.slots import STALLED_S, Slot, Slots


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def slots(most: int, clock: Callable[[], float] | None = None, *, adapts: bool = True) -> Slots:
    limit = ConcurrencyLimit(most, adapts=adapts)
    return Slots(limit, "http://server") if clock is None else Slots(limit, "http://server", clock)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_never_more_than_there_are_and_all_get_their_turn() -> None:
    s, peak, done = slots(3), 0, 0

    async def call(i: int) -> None:
        nonlocal peak, done
        slot = s.slot(i)
        if not slot.try_enter():
            await slot.__aenter__()
        peak = max(peak, s.under_way)
        await turns(3)
        slot.leave(answered=True)
        done += 1

    await asyncio.gather(*(call(i) for i in range(50)))
    assert (peak, done, s.under_way, s.waiting) == (3, 50, 0, 0)


async def test_who_made_its_call_first_goes_first() -> None:
    s, order = slots(1), []
    held = s.slot(0)
    assert held.try_enter()

    async def call(made_at: float) -> None:
        async with s.slot(made_at):
            order.append(made_at)

    tasks = [asyncio.create_task(call(made_at)) for made_at in (5.0, 3.0, 4.0, 1.0)]
    await turns()
    held.leave()
    await asyncio.gather(*tasks)
    assert order == [1.0, 3.0, 4.0, 5.0]


async def test_nobody_overtakes_those_who_wait() -> None:
    s = slots(1)
    held = s.slot(0)
    held.try_enter()
    waiting = asyncio.create_task(s.slot(1).__aenter__())
    await turns()
    held.leave()
    assert not s.slot(0).try_enter()
    (await waiting).leave()


async def test_one_that_is_cancelled_leaves_nothing_behind() -> None:
    s = slots(1)
    held = s.slot(0)
    held.try_enter()
    gone, stays = (asyncio.create_task(s.slot(i).__aenter__()) for i in (1, 2))
    await turns()
    gone.cancel()
    await turns()
    held.leave()
    slot = await stays
    assert (s.under_way, s.waiting) == (1, 0)
    slot.leave()
    assert s.under_way == 0


async def test_one_that_is_cancelled_when_its_turn_has_come_gives_it_on() -> None:
    s = slots(1)
    held = s.slot(0)
    held.try_enter()
    gone, stays = (asyncio.create_task(s.slot(i).__aenter__()) for i in (1, 2))
    await turns()
    held.leave()
    gone.cancel()  # its turn has come, but it has not run since
    slot = await stays
    assert s.under_way == 1
    slot.leave()
    assert s.under_way == 0


def test_threads_wait_too() -> None:
    s, peak, lock = slots(2), [0], threading.Lock()

    def call(i: int) -> None:
        with s.slot(i), lock:
            peak[0] = max(peak[0], s.under_way)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert peak[0] <= 2 and (s.under_way, s.waiting) == (0, 0)


async def test_a_blocking_call_in_an_event_loop_does_not_stop_it() -> None:
    s = slots(1)
    with s.slot(0), s.slot(1):
        assert s.under_way == 2
    assert s.under_way == 0


def test_a_blocking_one_gives_up_when_it_is_told_to() -> None:
    s = slots(1)
    s.slot(0).try_enter()
    slot = s.slot(1)
    slot.give_up_at = s.clock() + 0.02
    with pytest.raises(TimeoutError, match="http://server"):
        slot.__enter__()
    assert s.waiting == 0


def test_one_gives_up_when_nothing_is_answered_any_more() -> None:
    clock = Clock()
    s = slots(1, clock)
    s.slot(0).try_enter()
    slot = s.slot(1)
    asked = slot._queue_up(bool)
    clock.now = STALLED_S - 1
    slot._look(asked)
    s.last_answer = clock.now
    clock.now = STALLED_S + 1
    slot._look(asked)  # something was answered since
    clock.now = 2 * STALLED_S
    with pytest.raises(TimeoutError):
        slot._look(asked)


def test_leaving_twice_is_leaving_once() -> None:
    s = slots(4)
    one, two = s.slot(0), s.slot(0)
    assert one.try_enter() and two.try_enter()
    one.leave()
    one.leave()
    assert s.under_way == 1


def test_refusals_lower_the_limit_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    s = slots(100)
    all_ = [s.slot(i) for i in range(10)]
    assert all(slot.try_enter() for slot in all_)
    for slot in all_[:6]:
        slot.leave(refused=True)
    assert int(s.limit.limit) == 4 and not s.slot(11).try_enter()
    assert "http://server is overloaded: it has room for" in caplog.text


def test_after_a_pause_one_may_go_without_anybody_leaving() -> None:
    clock = Clock()
    s = slots(8, clock)
    first = s.slot(0)
    first.try_enter()
    first.leave(refused=True)
    slot, woken = s.slot(1), []
    asked = slot._queue_up(lambda: woken.append(1) or True)
    assert not slot.taken
    assert slot._longest(asked) == pytest.approx(0.25)
    clock.now = 0.25
    slot._look(asked)
    assert slot.taken and woken


def test_two_configs_of_one_server_have_the_lower_number() -> None:
    s = slots(8, adapts=False)
    s.lower(3)
    s.lower(5)
    assert [s.slot(i).try_enter() for i in range(4)] == [True, True, True, False]


def test_a_waiting_task_of_a_loop_that_is_closed_takes_no_turn() -> None:
    s = slots(1)
    held = s.slot(0)
    held.try_enter()
    kept: list[Slot] = []

    async def wait_and_vanish() -> None:
        kept.append(s.slot(1))
        task = asyncio.ensure_future(kept[0].__aenter__())
        await turns()
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    loop = asyncio.new_event_loop()
    loop.run_until_complete(wait_and_vanish())
    loop.close()
    held.leave()
    assert s.slot(2).try_enter()
    gc.collect()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_slot_of_what_was_dropped_in_a_circle_is_found(monkeypatch: pytest.MonkeyPatch, asynchronous: bool) -> None:
    monkeypatch.setattr("nat_dynamo_plugin.admission.slots.LOST_S", 0.01)
    monkeypatch.setattr("nat_dynamo_plugin.admission.slots.STALLED_S", 20.0)  # after which it would fail
    s = slots(1)

    class Dropped:
        def __init__(self) -> None:
            self.itself = self
            self.slot = s.slot(0)
            assert self.slot.try_enter()

        def __del__(self) -> None:
            self.slot.leave()

    async def enter() -> None:
        async with s.slot(1):
            pass

    gc.disable()
    try:
        Dropped()
        if asynchronous:
            asyncio.run(enter())
        else:
            with s.slot(1):
                pass
    finally:
        gc.enable()
    assert (s.under_way, s.waiting) == (0, 0)
