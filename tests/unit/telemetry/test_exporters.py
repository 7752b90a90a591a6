from __future__ import annotations

import logging
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from nat_dynamo_plugin.telemetry import exporters, nat_steps
from nat_dynamo_plugin.telemetry.exporters import add_exporter, default_exporters, emit, set_exporters
from nat_dynamo_plugin.telemetry.record import CallRecord

pytestmark = pytest.mark.usefixtures("fresh")


def modules(monkeypatch: pytest.MonkeyPatch, **made: Any) -> None:
    """Have the backends be these: a module, or what its import raises."""

    def load(name: str) -> Any:
        found = made[name.rpartition(".")[2]]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(exporters, "BACKENDS", dict.fromkeys(made, "library"))
    monkeypatch.setattr(exporters, "import_module", load)


def test_installed_libraries_are_found() -> None:
    code = (
        "from nat_dynamo_plugin.telemetry.exporters import default_exporters\n"
        "print([getattr(e, '__name__', type(e).__name__) for e in default_exporters()])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['export', 'PrometheusExporter', 'OpenTelemetryExporter']"


def test_every_backend_has_an_exporter() -> None:
    assert nat_steps.exporter() is nat_steps.export
    assert list(exporters.BACKENDS) == ["nat_steps", "prometheus", "otel"]


def test_a_name_that_the_user_has_taken_fails_no_call() -> None:
    code = (
        "import logging; logging.basicConfig(format='LOG %(message)s')\n"
        "from prometheus_client import Counter; Counter('nat_dynamo_calls', 'mine')\n"
        "from nat_dynamo_plugin.telemetry.exporters import _exporters, emit\n"
        "from nat_dynamo_plugin.telemetry.record import CallRecord\n"
        "emit(CallRecord()); emit(CallRecord()); print(len(_exporters.current()))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2"
    assert done.stderr.count("LOG No records go to prometheus") == 1 and "nat_dynamo_calls" in done.stderr


def test_a_backend_that_can_not_be_made_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, record: CallRecord
) -> None:
    def broken() -> Any:
        raise ValueError("taken")

    seen: list[CallRecord] = []
    modules(
        monkeypatch,
        absent=ModuleNotFoundError("No module named 'library.metrics'", name="library.metrics"),
        damaged=ModuleNotFoundError("No module named 'other'", name="other"),
        failing=SimpleNamespace(exporter=broken),
        good=SimpleNamespace(exporter=lambda: seen.append),
    )
    emit(record)
    emit(record)
    assert seen == [record, record]
    warned = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert len(warned) == 2 and "damaged" in warned[0] and "failing" in warned[1]


class _Crowd:
    """A lock that lets nobody in before all have come."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._barrier.wait()
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def test_the_default_exporters_are_made_once(monkeypatch: pytest.MonkeyPatch, record: CallRecord) -> None:
    made: list[int] = []
    seen: list[CallRecord] = []

    def exporter() -> Any:
        made.append(1)
        return seen.append

    modules(monkeypatch, one=SimpleNamespace(exporter=exporter))
    with monkeypatch.context() as patched:
        patched.setattr(exporters._exporters, "lock", _Crowd(8))
        threads = [threading.Thread(target=emit, args=[record]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    set_exporters([])
    set_exporters(None)
    emit(record)
    assert len(made) == 1 and len(seen) == 9


def test_exporters_can_be_chosen_and_added(record: CallRecord) -> None:
    first: list[CallRecord] = []
    second: list[CallRecord] = []
    set_exporters([first.append])
    add_exporter(second.append)
    emit(record)
    assert first == second == [record]


def test_one_can_be_added_to_none_and_to_the_default(monkeypatch: pytest.MonkeyPatch, record: CallRecord) -> None:
    default: list[CallRecord] = []
    own: list[CallRecord] = []
    modules(monkeypatch, one=SimpleNamespace(exporter=lambda: default.append))
    add_exporter(own.append)
    emit(record)
    assert default == own == [record]
    set_exporters([])
    add_exporter(own.append)
    emit(record)
    assert (len(default), len(own)) == (1, 2)


class _Broken:
    """Can be neither called nor named nor compared."""

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, record: CallRecord) -> None:
        raise ValueError("broken exporter")

    def __eq__(self, other: object) -> bool:
        raise ValueError("not comparable")

    def __repr__(self) -> str:
        raise ValueError("no name")


def test_an_exporter_that_fails_is_said_once_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture, record: CallRecord
) -> None:
    def broken(record: CallRecord) -> None:
        raise ValueError("broken exporter")

    seen: list[CallRecord] = []
    set_exporters([broken, seen.append])
    with caplog.at_level(logging.DEBUG, logger=exporters.__name__):
        for _ in range(3):
            emit(record)
    assert len(seen) == 3
    assert [entry.levelname for entry in caplog.records] == ["WARNING", "DEBUG", "DEBUG"]
    assert "broken exporter" in caplog.text


def test_nothing_that_an_exporter_is_makes_emit_raise(record: CallRecord) -> None:
    seen: list[CallRecord] = []
    set_exporters([_Broken(), seen.append])
    emit(record)
    emit(record)
    assert len(seen) == 2


def test_nothing_at_all_is_exported_by_default_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    modules(monkeypatch, absent=ModuleNotFoundError("No module named 'library'", name="library"))
    assert default_exporters() == ()
