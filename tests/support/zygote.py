"""Starts ``esl-apps`` in a process of its own, forked from one that has imported everything.

An import takes half a second of CPU, and the suite starts hundreds of nodes. The forked process is what ``python -m
esl_apps`` is after its imports: the same ``main``, no socket, no thread, a hub that never ran.
"""

from __future__ import annotations

import _socket  # a patched one would wait in gevent's hub
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, BinaryIO

import gevent

_REQUEST = 1 << 16


class Forked:
    """A process with the methods of ``subprocess.Popen`` that tests use."""

    def __init__(self, zygote: Zygote, pid: int) -> None:
        self._zygote = zygote
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._zygote.ended(self.pid, 0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """:raises subprocess.TimeoutExpired: it is still there."""
        if self.poll() is None:
            self.returncode = self._zygote.ended(self.pid, 1e6 if timeout is None else timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("esl-apps", timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Zygote:
    """The process that forks. It ends with this one, and so do all processes that it forked."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.zygote", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._exits: dict[int, int] = {}
        self._begun: list[int] = []
        self._reading = threading.Lock()

    def start(self, argv: list[str], out: int, err: int | None = None, into: int | None = None) -> Forked:
        """``esl-apps`` with these arguments and file descriptors."""
        fds = [os.open(os.devnull, os.O_RDONLY) if into is None else into, out, out if err is None else err]
        try:
            order = json.dumps({"argv": argv, "cwd": os.getcwd(), "env": dict(os.environ)}).encode()
            with self._reading:
                socket.send_fds(self._ours, [order], fds)
                while not self._begun:
                    self._read(30)
                return Forked(self, self._begun.pop())
        finally:
            if into is None:
                os.close(fds[0])

    def ended(self, pid: int, timeout: float) -> int | None:
        """Return the status as ``Popen.returncode`` has it, or None if it has not ended within ``timeout`` s."""
        end = time.monotonic() + timeout
        while True:
            with self._reading:
                while self._read(0):
                    pass
                if pid in self._exits:
                    return self._exits[pid]
            if time.monotonic() >= end:
                return None
            time.sleep(0.005)

    def _read(self, timeout: float) -> bool:
        if not select.select([self._ours], [], [], timeout)[0]:
            return False
        said = json.loads(self._ours.recv(_REQUEST) or b'{"gone": 1}')
        assert "gone" not in said, f"the zygote ended: {self._process.poll()}"
        if "begun" in said:
            self._begun.append(said["begun"])
        else:
            self._exits[said["pid"]] = said["status"]
        return True


_zygotes: dict[int, Zygote] = {}


def start(argv: list[str], out: BinaryIO | int, err: int | None = None, into: int | None = None) -> Forked:
    """Start ``esl-apps`` in a process of its own, with its output to ``out``."""
    return prepared().start(argv, out if isinstance(out, int) else out.fileno(), err, into)


def prepared() -> Zygote:
    """Return this process's zygote. A new one imports while its caller goes on."""
    zygote = _zygotes.get(os.getpid())
    if zygote is None:
        zygote = _zygotes[os.getpid()] = Zygote()
    return zygote


def run(argv: list[str], input: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run ``esl-apps`` as ``subprocess.run(..., capture_output=True, text=True)`` would."""
    files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    try:
        os.write(files[0], (input or "").encode())
        os.lseek(files[0], 0, os.SEEK_SET)
        status = start(argv, files[1], files[2], files[0]).wait(timeout)
        texts = [os.pread(fd, 1 << 24, 0).decode() for fd in files[1:]]
        return subprocess.CompletedProcess(argv, status, *texts)
    finally:
        for fd in files:
            os.close(fd)


def main() -> None:
    fork, poller = os.fork, select.poll()
    from esl_apps import __main__ as program

    program.patch()
    from esl_apps.cli import serve  # noqa: F401 - imported for those to come

    channel = _socket.socket(fileno=int(sys.argv[1]))
    channel.setblocking(True)
    poller.register(channel.fileno(), select.POLLIN)
    children: dict[int, int] = {}
    while True:
        for fd, _ in poller.poll():
            if fd != channel.fileno():
                pid = children.pop(fd)
                poller.unregister(fd)
                os.close(fd)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                channel.send(json.dumps({"pid": pid, "status": status}).encode())
                continue
            order, ancillary, _, _ = channel.recvmsg(_REQUEST, _socket.CMSG_SPACE(3 * 4))
            if not order:
                for pid in children.values():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return
            given = [int.from_bytes(ancillary[0][2][i : i + 4], sys.byteorder) for i in range(0, 12, 4)]
            pid = fork()
            if pid == 0:
                _become(json.loads(order), given, [channel.fileno(), *children], program.main)
            for one in given:
                os.close(one)
            watched = os.pidfd_open(pid)
            children[watched] = pid
            poller.register(watched, select.POLLIN)
            channel.send(json.dumps({"begun": pid}).encode())


def _become(order: dict[str, Any], given: list[int], others: list[int], program: Any) -> None:
    gevent.reinit()  # falcon's import makes a hub
    for fd in others:
        os.close(fd)
    for number, fd in enumerate(given):
        os.dup2(fd, number)
    for fd in given:
        if fd > 2:
            os.close(fd)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = ["esl-apps", *order["argv"]]
    status = 1
    try:
        program()
    except SystemExit as error:
        code = error.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
        status = code if isinstance(code, int) else int(code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
