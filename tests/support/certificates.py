"""Certificates that expire when a test wants."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support import TLS

#: The beginning and the end of ``one.pem``, in DER.
_BEGIN, _END = b"\x17\x0d261122012859Z", b"\x18\x0f21261029012859Z"


def certificate(folder: Path, end: bytes, form: str = "CERTIFICATE", begin: bytes = _BEGIN) -> str:
    """Write ``one.pem`` with another end, and without a valid signature; return the file's name. Its key stays.
    ``begin``: as long as its own."""
    der = ssl.PEM_cert_to_DER_cert((TLS / "one.pem").read_text())
    assert der.count(_END) == 1
    before, _, behind = der.replace(_BEGIN, begin).partition(_END)
    # The lengths of the certificate, of its signed part and of its validity.
    shorter = len(_END) - len(end)
    file = folder / "cert.pem"
    lines = base64.encodebytes(_shortened(before, shorter) + end + behind).decode()
    file.write_text(f"-----BEGIN {form}-----\n{lines}-----END {form}-----\n")
    return str(file)


def expiring(folder: Path, days: float, lifetime: float = 365) -> str:
    """As ``certificate``, from now on; ``lifetime`` is in days."""
    end = datetime.now(UTC) + timedelta(days=days)
    begin = (end - timedelta(days=lifetime)).strftime("%y%m%d%H%M%SZ")
    return certificate(folder, b"\x18\x0f" + end.strftime("%Y%m%d%H%M%SZ").encode(), begin=b"\x17\x0d" + begin.encode())


def _shortened(head: bytes, by: int) -> bytes:
    """The lengths of the certificate and of its signed part take two bytes each, that of the validity one."""
    data = bytearray(head)
    for at in (2, 6):
        data[at : at + 2] = (int.from_bytes(data[at : at + 2]) - by).to_bytes(2)
    # The validity begins with its beginning, a time of 13 letters.
    validity = len(data) - 17 + 1
    data[validity] -= by
    return bytes(data)
