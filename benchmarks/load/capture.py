"""Capture loopback packets with the kernel's timestamps, so that no measured process has to wake up to read a clock.

Uses ``dumpcap`` from Wireshark, which needs root or the capability cap_net_raw.
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
    """A UDP or TCP packet over IPv4; ``at`` is in seconds since 1970."""

    at: float
    tcp: bool
    source: int
    target: int
    data: bytes


def obstacle() -> str:
    """Return why packets can't be captured on this machine, or an empty string if they can."""
    if shutil.which("dumpcap") is None:
        return "dumpcap is not installed (Debian package: tshark)"
    tried = subprocess.run(
        ["dumpcap", "-q", "-i", "lo", "-a", "duration:1", "-w", "/dev/null"], capture_output=True, check=False
    )
    return "" if tried.returncode == 0 else "dumpcap may not capture on lo: run as root, or give it cap_net_raw"


@contextlib.contextmanager
def capturing(expression: str) -> Iterator[list[Packet]]:
    """Capture the loopback packets that match ``expression``, a tcpdump filter. The list is filled at the end of the
    block.

    :raises RuntimeError: some packets were lost.
    """
    packets: list[Packet] = []
    with tempfile.TemporaryDirectory(prefix="capture-") as folder, socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        file = Path(folder) / "packets.pcap"
        command = ["dumpcap", "-q", "-i", "lo", "-P", "-B", "64", "-w", str(file)]
        command += ["-f", f"({expression}) or (udp port {port})"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
            try:
                _until_seen(probe, port, file, child)
                yield packets
                _until_seen(probe, port, file, child)
            finally:
                child.terminate()
                _, output = child.communicate(timeout=10)
        lost = output.partition("received/dropped on interface")[2].partition("/")[2].partition(": ")[2]
        lost = lost.partition("/")[2].partition(" ")[0]
        if lost not in ("", "0"):
            raise RuntimeError(f"dumpcap lost {lost} packets")
        packets += _packets(file)


def _until_seen(probe: socket.socket, port: int, file: Path, child: subprocess.Popen[str]) -> None:
    """Send probes until one shows up in the file. All packets sent before it are in the file then, too."""
    until = time.monotonic() + 10
    before = file.stat().st_size if file.exists() else 0
    while not (file.exists() and file.stat().st_size > before and _PROBE in file.read_bytes()[before:]):
        if child.poll() is not None or time.monotonic() > until:
            raise RuntimeError("dumpcap captured no probe within 10 s")
        probe.sendto(_PROBE, ("127.0.0.1", port))
        time.sleep(0.05)


def _packets(file: Path) -> Iterator[Packet]:
    """Yield the captured packets that have a payload, in order."""
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
