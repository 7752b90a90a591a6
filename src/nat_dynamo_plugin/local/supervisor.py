"""Keeps one embedded Dynamo's processes, and sees to it that none of them outlives the run.

Started by `LocalDynamo` as a file (not with `-m`: that would import the package and, with it, the toolkit), in a
session of its own, so that Ctrl-C in a terminal reaches the program that uses Dynamo and not Dynamo. It is the parent
of every Dynamo process and runs the event plane's broker itself.

It ends, taking everything with it, as soon as one of these happens: its stdin is closed, the process that started it
is gone (a pidfd says so, even if a fork of that process still holds the pipe), or it gets SIGTERM, SIGINT or SIGHUP.
Should it be killed itself, the kernel kills its children (PR_SET_PDEATHSIG).

Protocol: one JSON object a line on stdout (`started` with pids, `exited` with name and return code, `failed` with a
reason); on stdin the line `keep` means: leave the work directory when you end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with_parent() -> Callable[[], None]:
    """What a child runs before exec, so that the kernel kills it when this process is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent went before the request was made
            os._exit(1)

    return in_child


def _emit(event: dict[str, Any]) -> None:
    """Tell the starter; that it no longer listens is no reason to fail."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(event).encode() + b"\n")


def _start_broker() -> str:
    """Run a ZMQ XSUB/XPUB proxy in a thread; the value for DYN_ZMQ_BROKER_URL.

    Without a broker each worker binds several ports on 0.0.0.0. ZMQ picks free ports itself while binding.
    """
    import zmq

    context = zmq.Context()
    endpoints = []
    sockets = []
    for kind in (zmq.XSUB, zmq.XPUB):
        sock = context.socket(kind)
        sock.setsockopt(zmq.LINGER, 0)
        # No high-water mark: a dropped KV event would leave the router believing in blocks that are gone.
        sock.setsockopt(zmq.SNDHWM, 0)
        sock.setsockopt(zmq.RCVHWM, 0)
        sock.bind("tcp://127.0.0.1:*")
        endpoints.append(sock.getsockopt_string(zmq.LAST_ENDPOINT))
        sockets.append(sock)
    threading.Thread(target=zmq.proxy, args=(sockets[0], sockets[1]), name="broker", daemon=True).start()
    return f"xsub={endpoints[0]} , xpub={endpoints[1]}"


class _Supervisor:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.work_dir = Path(spec["work_dir"])
        self.commands: list[dict[str, Any]] = spec["commands"]
        self.parent_pid: int = spec["parent_pid"]
        self.grace_s: float = spec["grace_s"]
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.keep = False
        self._selector = selectors.DefaultSelector()
        self._pending = b""

    def run(self) -> None:
        try:
            if self._watch_starter():
                self._start_children()
                self._wait_for_the_end()
        except Exception as error:
            _emit({"event": "failed", "reason": f"{type(error).__name__}: {error}"})
            raise
        finally:
            self._stop_children()
            if not self.keep:
                shutil.rmtree(self.work_dir, ignore_errors=True)

    def _watch_starter(self) -> bool:
        """Register everything that means "stop"; False if the starter is gone already."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._selector.register(wake_read, selectors.EVENT_READ, "stop")
        self._selector.register(0, selectors.EVENT_READ, "stdin")
        try:
            self._selector.register(os.pidfd_open(self.parent_pid), selectors.EVENT_READ, "stop")
        except ProcessLookupError:
            return False
        return True

    def _start_children(self) -> None:
        environment = {**os.environ, "DYN_ZMQ_BROKER_URL": _start_broker()}
        for command in self.commands:
            with Path(command["log"]).open("ab") as log:
                child = subprocess.Popen(
                    command["argv"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.work_dir,
                    env=environment | command["env"],
                    process_group=0,  # so that whatever a child starts can be killed with it
                    preexec_fn=_die_with_parent(),
                )
            self.children[command["name"]] = child
            self._selector.register(os.pidfd_open(child.pid), selectors.EVENT_READ, command["name"])
        _emit({"event": "started", "pids": {name: child.pid for name, child in self.children.items()}})

    def _wait_for_the_end(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data == "stop":
                    return
                if key.data == "stdin":
                    received = os.read(0, 4096)
                    self._pending += received
                    *lines, self._pending = self._pending.split(b"\n")
                    self.keep = self.keep or b"keep" in lines
                    if not received:
                        return
                else:
                    self._selector.unregister(key.fileobj)
                    os.close(key.fd)
                    child = self.children.pop(key.data)
                    self._kill(child)
                    _emit({"event": "exited", "name": key.data, "returncode": child.returncode})

    def _stop_children(self) -> None:
        deadline = time.monotonic() + self.grace_s
        for child in self.children.values():
            if child.poll() is None:
                child.terminate()
        for child in self.children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
        for child in self.children.values():
            self._kill(child)

    @staticmethod
    def _kill(child: subprocess.Popen[bytes]) -> None:
        """Kill a child and whatever it left in its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def main() -> None:
    """Run the processes that the JSON file named by the first argument describes."""
    supervisor = _Supervisor(json.loads(Path(sys.argv[1]).read_text()))
    supervisor.run()
    # The broker's thread sits in native code; there is nothing left that an orderly interpreter exit would do.
    os._exit(0)


if __name__ == "__main__":
    main()
