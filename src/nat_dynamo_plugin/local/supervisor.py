"""Keeps one embedded Dynamo's processes, and sees to it that none of them outlives the run.

Started by `LocalDynamo` as a file (not with `-m`: that would import the package and, with it, the toolkit), in a
session of its own, so that Ctrl-C in a terminal reaches the program that uses Dynamo and not Dynamo. It is the parent
of every Dynamo process and runs the event plane's broker itself.

It ends, taking everything with it, as soon as one of these happens: its stdin says `stop` or is closed, the process
that started it is gone (it looks twice a second, in case a fork of that process still holds the pipe), or it gets
SIGTERM, SIGINT or SIGHUP, whatever its starter ignores or blocks. Should it be killed itself, the kernel kills its
children (see `tethered.py`).

Protocol: one JSON object a line on stdout (`started` with pids, `exited` with name and return code, `failed` with a
reason); on stdin the lines `keep` (leave the work directory when you end) and `stop`.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_TETHERED = Path(__file__).with_name("tethered.py")
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LOOK_FOR_STARTER_S = 0.5
_SHARED_MEMORY = Path("/dev/shm")


def remove_shared_memory(work_dir: Path) -> None:
    """Remove what killed processes of an instance left in shared memory; it bears the folder's name."""
    for left in _SHARED_MEMORY.glob(f"*{work_dir.name}*"):
        with contextlib.suppress(OSError):
            left.unlink()


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
        self._signals = -1
        self._pending = b""

    def run(self) -> None:
        try:
            self._watch()
            if not self._orphaned():
                self._start_children()
                while self._goes_on():
                    pass
        except Exception as error:
            _emit({"event": "failed", "reason": f"{type(error).__name__}: {error}"})
            raise
        finally:
            self._stop_children()
            remove_shared_memory(self.work_dir)
            if not self.keep:
                shutil.rmtree(self.work_dir, ignore_errors=True)

    def _orphaned(self) -> bool:
        return os.getppid() != self.parent_pid

    def _watch(self) -> None:
        """Turn signals into bytes on a pipe, and wait for those and for stdin."""
        self._signals, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        for number in (*_STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._selector.register(self._signals, selectors.EVENT_READ)
        self._selector.register(0, selectors.EVENT_READ)

    def _start_children(self) -> None:
        environment = {**os.environ, "DYN_ZMQ_BROKER_URL": _start_broker()}
        tethered = [sys.executable, "-I", "-S", str(_TETHERED), str(os.getpid())]
        for command in self.commands:
            with Path(command["log"]).open("ab") as log:
                self.children[command["name"]] = subprocess.Popen(
                    tethered + command["argv"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment | command["env"],
                    process_group=0,  # so that whatever a child starts can be killed with it
                )
        _emit({"event": "started", "pids": {name: child.pid for name, child in self.children.items()}})

    def _goes_on(self) -> bool:
        """Wait for something to happen; False if it means the end."""
        for key, _ in self._selector.select(_LOOK_FOR_STARTER_S):
            received = os.read(key.fd, 4096)
            if key.fd == self._signals:
                if any(number in _STOP_SIGNALS for number in received):
                    return False
            else:
                *lines, self._pending = (self._pending + received).split(b"\n")
                self.keep = self.keep or b"keep" in lines
                if not received or b"stop" in lines:
                    return False
        for name, child in list(self.children.items()):
            if child.poll() is not None:
                del self.children[name]
                self._kill(child)
                _emit({"event": "exited", "name": name, "returncode": child.returncode})
        return not self._orphaned()

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
