"""Packets on loopback as the kernel stamps them: no process of the measurement has to be awake to read a clock.

``dumpcap`` (of Wireshark; it takes root, or its capability) writes them.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FRAME = struct.Struct("<IIII")
_MAGIC = {0xA1B2C3D4: 1e6, 0xA1B23C4D: 1e9}
_PROBE = b"is anybody there?"


class Packet(NamedTuple):
    """Ports and payload of a UDP or TCP packet over IPv4; ``at``: seconds since 1970."""

    at: float
    tcp: bool
    source: int
    target: int
    data: bytes


def missing() -> str:
    """Why nothing can be captured here; empty: it can."""
    if shutil.which("dumpcap") is None:
        return "no dumpcap (Debian: tshark)"
    tried = subprocess.run(
        ["dumpcap", "-q", "-i", "lo", "-a", "duration:1", "-w", "/dev/null"], capture_output=True, check=False
    )
    return "" if tried.returncode == 0 else "dumpcap may not capture on lo (root, or cap_net_raw on it)"


@contextlib.contextmanager
def capturing(expression: str) -> Iterator[list[Packet]]:
    """The packets of loopback that ``expression`` (as tcpdump's) lets through; the list is filled when the block is
    left.

    :raises RuntimeError: not all of them were seen.
    """
    found: list[Packet] = []
    with tempfile.TemporaryDirectory(prefix="capture-") as folder, socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        file = Path(folder) / "packets.pcap"
        command = ["dumpcap", "-q", "-i", "lo", "-P", "-B", "64", "-w", str(file)]
        command += ["-f", f"({expression}) or (udp port {port})"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
            try:
                _until_seen(probe, port, file, child)
                yield found
                _until_seen(probe, port, file, child)
            finally:
                child.terminate()
                _, said = child.communicate(timeout=10)
        lost = said.partition("received/dropped on interface")[2].partition("/")[2].partition(": ")[2]
        lost = lost.partition("/")[2].partition(" ")[0]
        if lost not in ("", "0"):
            raise RuntimeError(f"dumpcap lost {lost} packets")
        found += _packets(file)


def _until_seen(probe: socket.socket, port: int, file: Path, child: subprocess.Popen[str]) -> None:
    """Until a packet that is sent now stands in the file, and with it all that were sent before."""
    until = time.monotonic() + 10
    before = file.stat().st_size if file.exists() else 0
    while not (file.exists() and file.stat().st_size > before and _PROBE in file.read_bytes()[before:]):
        if child.poll() is not None or time.monotonic() > until:
            raise RuntimeError("dumpcap does not capture")
        probe.sendto(_PROBE, ("127.0.0.1", port))
        time.sleep(0.05)


def _packets(file: Path) -> Iterator[Packet]:
    """What was captured, in its order; packets without a payload are left out."""
    data = file.read_bytes()
    scale = _MAGIC[struct.unpack_from("<I", data)[0]]
    at = 24
    while at + _FRAME.size <= len(data):
        seconds, fraction, size, _ = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        frame = data[at : at + size]
        at += size
        if frame[12:14] != b"\x08\x00":
            continue
        ip = frame[14:]
        head = (ip[0] & 15) * 4
        length = int.from_bytes(ip[2:4], "big")
        protocol, rest = ip[9], ip[head:length]
        if protocol not in (6, 17):
            continue
        source, target = struct.unpack_from(">HH", rest)
        payload = rest[(rest[12] >> 4) * 4 :] if protocol == 6 else rest[8:]
        if payload:
            yield Packet(seconds + fraction / scale, protocol == 6, source, target, payload)
