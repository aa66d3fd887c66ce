"""systemd's end of sd_notify(3)."""

from __future__ import annotations

import socket
from pathlib import Path


class Manager:
    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)

    def told(self) -> list[list[str]]:
        """The lines of each message that has come."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()
