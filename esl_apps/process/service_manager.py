"""Tell systemd how a node is: ready, reloading, stopping, its calls and its health, and that its loop still turns.

The protocol is sd_notify(3): datagrams of lines to the socket that ``$NOTIFY_SOCKET`` names, if there is one.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import gevent

#: Seconds between two looks at the status.
_EVERY = 2.0
#: Characters of a status that are shown.
_LONGEST = 400


class ServiceManager:
    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        """``address``: of its socket; '' if there is none. ``watchdog``: seconds of silence after which it restarts the
        service; None: never."""
        self._address = address
        self._watchdog = watchdog
        self._told = ""
        self._note = ""

    @classmethod
    def inherited(cls) -> ServiceManager:
        """The one that started this process. Its variables are removed: they aren't for workers and helpers."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        meant = os.environ.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        return cls(address, int(microseconds) / 1e6 if microseconds.isdecimal() and meant else None)

    def ready(self, status: str) -> None:
        self._send("READY=1", self._line(status))

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self, refused: str | None, status: str) -> None:
        """``refused``: why the old configuration stays in force. It is shown until the next reload."""
        self._note = f"reload refused: {refused}; " if refused else ""
        self.ready(status)

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def keep_telling(self, status: Callable[[], str]) -> None:
        """Tell the status when it changes, and the watchdog that the loop turns. Runs until it is killed."""
        # Thrice in its time: one late beat mustn't end a node.
        pause = _EVERY if self._watchdog is None else min(_EVERY, self._watchdog / 3)
        while self._address:
            lines = ["WATCHDOG=1"] if self._watchdog is not None else []
            told = self._told
            if (line := self._line(status())) != told:
                lines.append(line)
            self._send(*lines)
            gevent.sleep(pause)

    def _line(self, status: str) -> str:
        # A reason may have been worded elsewhere: another line would be another message to systemd.
        self._told = "STATUS=" + " ".join(f"{self._note}{status}".split())[:_LONGEST]
        return self._told

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # systemd may be restarting itself; a node goes on.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), address)
