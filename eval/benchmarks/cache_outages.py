"""What a Redis in trouble adds to calls: a thousand calls each while it is well, frozen, killed, full or refuses us.

The server answers from memory, as in `cache.py`. Each call is another one, so all of them ask Redis for what is not
there, and write. Printed are the calls that failed and the time of a call: median, 99th percentile and longest.

    python eval/benchmarks/cache_outages.py [--calls N]
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

sys.path.insert(0, str(Path(__file__).parent))
from cache import body, call_of, ended, service_with


@contextlib.contextmanager
def server() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A Redis of its own, with its port."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        raise SystemExit("redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([binary, "--port", str(port), "--save", ""], stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port)
        while True:
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                break
            time.sleep(0.01)
        yield process, port
    finally:
        process.kill()
        process.wait()


def _password(port: int) -> None:
    client = redis.Redis(port=port)
    client.config_set("requirepass", "new")
    client.client_kill_filter(_type="normal", skipme=True)


TROUBLES: dict[str, Callable[[subprocess.Popen[bytes], int], Any]] = {
    "well": lambda process, port: None,
    "frozen (SIGSTOP)": lambda process, port: process.send_signal(signal.SIGSTOP),
    "killed": lambda process, port: (process.kill(), process.wait()),
    "full (maxmemory)": lambda process, port: redis.Redis(port=port).config_set("maxmemory", 1),
    "another password": lambda process, port: _password(port),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    calls = parser.parse_args().calls
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print(f"{'Redis is':20}{'calls':>7}{'failed':>8}{'over 1 ms':>11}{'median ms':>11}{'p99 ms':>9}{'longest ms':>12}")
    for name, make in TROUBLES.items():
        with server() as (process, port):
            service = service_with({"redis_url": f"redis://127.0.0.1:{port}/0", "backend": "redis"})
            ended(call := call_of(body(1000, 0)), service.send(call))
            make(process, port)
            times, failed = [], 0
            for number in range(1, calls + 1):
                call = call_of(body(1000, number))
                started = time.perf_counter()
                try:
                    ended(call, service.send(call))
                except Exception:
                    failed += 1
                times.append((time.perf_counter() - started) * 1000.0)
            times.sort()
            slow = sum(one > 1.0 for one in times)
            middle, late = times[len(times) // 2], times[len(times) * 99 // 100]
            print(f"{name:20}{calls:7}{failed:8}{slow:11}{middle:11.2f}{late:9.2f}{times[-1]:12.1f}")
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)


if __name__ == "__main__":
    main()
