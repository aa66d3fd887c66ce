"""Processes under measurement: starting them, pinning them to a core, reading their CPU time and memory."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent


def pin(pid: int, core: int) -> None:
    """Keep a process on one core (where there is but one, on that)."""
    cores = sorted(os.sched_getaffinity(0) | set(range(os.cpu_count() or 1)))
    os.sched_setaffinity(pid, {cores[core % len(cores)]})


def realtime(pid: int, on: bool) -> None:
    """Make all threads of a process realtime ones (SCHED_RR, the lowest priority), or ordinary ones again. Takes root,
    as FreeSWITCH does for the same."""
    policy, priority = (os.SCHED_RR, 1) if on else (os.SCHED_OTHER, 0)
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setscheduler(int(task), policy, os.sched_param(priority))


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started here stays on one core, with all its threads."""
    before = os.sched_getaffinity(0)
    pin(0, core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu(pid: int) -> float:
    """User and system seconds of a process, all its threads, to the nanosecond: its CPU-time clock."""
    return time.clock_gettime((~pid << 3) | 2)


def memory(pid: int) -> int:
    """Resident memory in KB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are still there."""
    return [int(text) for text in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def running(argv: list[str], port: int, core: int | None = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens on `port`, pinned, ended when the block is left."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, env=environment)
    try:
        if core is not None:
            pin(child.pid, core)
        deadline = time.monotonic() + 30
        while not listening(port):
            if child.poll() is not None or time.monotonic() > deadline:
                child.kill()
                raise RuntimeError(f"{' '.join(argv)} does not listen: {child.communicate()[1][-2000:].decode()}")
            time.sleep(0.05)
        yield child
    finally:
        child.terminate()
        try:
            child.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()


def listening(port: int) -> bool:
    """Whether a socket of this machine listens there; asked of the kernel: the application sees nothing."""
    wanted = f":{port:04X}"
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if local.endswith(wanted) and state == "0A":
            return True
    return False


def python(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]
