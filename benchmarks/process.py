"""Start processes, pin them to a core, and read their CPU time and memory."""

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
    """Keep a process on one core. Cores are counted modulo the machine's."""
    cores = sorted(os.sched_getaffinity(0) | set(range(os.cpu_count() or 1)))
    os.sched_setaffinity(pid, {cores[core % len(cores)]})


def realtime(pid: int, on: bool) -> None:
    """Make all threads of a process realtime (SCHED_RR, lowest priority), or ordinary again. Needs root."""
    policy, priority = (os.SCHED_RR, 1) if on else (os.SCHED_OTHER, 0)
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setscheduler(int(task), policy, os.sched_param(priority))


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep processes that are started in the block on one core, with all their threads."""
    before = os.sched_getaffinity(0)
    pin(0, core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu(pid: int) -> float:
    """Return user plus system seconds of a process with all its threads, from its CPU-time clock (nanoseconds)."""
    return time.clock_gettime((~pid << 3) | 2)


def memory(pid: int) -> int:
    """Return the resident memory of a process in KB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def children(pid: int) -> list[int]:
    """Return the pids of a process's living children."""
    return [int(text) for text in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def running(argv: list[str], port: int, core: int | None = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process, pinned to a core, and wait until it listens on `port`. It ends with the block."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, env=environment)
    try:
        if core is not None:
            pin(child.pid, core)
        deadline = time.monotonic() + 30
        while not listening(port):
            if child.poll() is not None or time.monotonic() > deadline:
                child.kill()
                raise RuntimeError(f"{' '.join(argv)} doesn't listen: {child.communicate()[1][-2000:].decode()}")
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
    """Whether a socket of this machine listens on `port`. Asks the kernel, so the application sees no connection."""
    suffix = f":{port:04X}"
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if local.endswith(suffix) and state == "0A":
            return True
    return False


def python(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]
