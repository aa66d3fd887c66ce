"""A network namespace for browsers, with a cable to this one: over loopback a browser offers no address for audio."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def why_not() -> str | None:
    """Return the reason why there can't be one here."""
    if os.geteuid() != 0:
        return "a network namespace takes root"
    return None if shutil.which("ip") else "no ip command (iproute2)"


class BrowserNetwork:
    """``address`` is this side of the cable, where the switch and the node listen."""

    def __init__(self) -> None:
        number = os.getpid()
        self.name = f"esl-apps-{number}"
        self._cable = f"esl{number % 1_000_000}"
        net = f"10.77.{number // 64 % 256}.{number % 64 * 4}"
        prefix, _, last = net.rpartition(".")
        self.address, self.far = (f"{prefix}.{int(last) + n}" for n in (1, 2))
        self.close()
        _run("netns", "add", self.name)
        near, far = f"{self._cable}a", f"{self._cable}b"
        _run("link", "add", near, "type", "veth", "peer", "name", far, "netns", self.name)
        _run("addr", "add", f"{self.address}/30", "dev", near)
        _run("link", "set", near, "up")
        _run("-n", self.name, "link", "set", "lo", "up")
        _run("-n", self.name, "addr", "add", f"{self.far}/30", "dev", far)
        _run("-n", self.name, "link", "set", far, "up")
        _run("-n", self.name, "route", "add", "default", "via", self.address)

    def wrapper(self, program: str, folder: Path) -> str:
        """Return a program that runs this one in the namespace."""
        path = folder / f"{Path(program).name}-in-{self.name}"
        path.write_text(f'#!/bin/sh\nexec ip netns exec {self.name} {program} "$@"\n')
        path.chmod(0o755)
        return str(path)

    def close(self) -> None:
        # The cable goes with the namespace.
        subprocess.run(["ip", "netns", "del", self.name], stderr=subprocess.DEVNULL, check=False)


def _run(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
