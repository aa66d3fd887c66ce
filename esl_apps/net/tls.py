"""The TLS context of a port: its certificate and key, and the lowest version for clients."""

from __future__ import annotations

import binascii
import math
import re
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from esl_apps.process.files import read_regular

#: Bytes of a certificate with its chain.
_MOST = 1 << 20
_PEM = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.*?)-----END ", re.DOTALL)
#: Tags in DER (X.690): the version of a certificate, and the shorter form of a time.
_VERSION, _UTC_TIME = 0xA0, 0x17


#: Seconds before its end by which a certificate should have been renewed: at most so many, and at most this part of its
#: lifetime. certbot renews one of 90 days 30 days before its end, and one of 6 days 3 days before. As of the alarm
#: CertificateExpires.
_RENEWED, _RENEWED_PART = 14 * 86400, 1 / 4


class Validity(NamedTuple):
    """When a certificate begins and expires, in seconds since 1970."""

    begin: float = -math.inf
    end: float = math.inf

    @property
    def lifetime(self) -> float:
        return self.end - self.begin

    @property
    def is_due(self) -> bool:
        """Whether it should have been renewed."""
        return self.end - time.time() <= min(_RENEWED, _RENEWED_PART * self.lifetime)


class Unusable(Exception):
    """A file can't be used. ``key`` is the configuration key that names it, ``cert`` or ``key``."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def context(cert: str, key: str, kind: Callable[[int], ssl.SSLContext] = ssl.SSLContext) -> ssl.SSLContext:
    """Return a server's context for a certificate (with its chain) and its key, both PEM files.

    :param kind: the class of the context; gevent has its own.
    :raises Unusable: a file can't be read or isn't PEM, or the two don't belong together.
    """
    server = kind(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    # Each renegotiation costs the server much more than the client that asks for it.
    server.options |= ssl.OP_NO_RENEGOTIATION
    server.set_alpn_protocols(["http/1.1"])
    for name, path in (("cert", cert), ("key", key)):
        try:
            if not Path(path).is_file():
                raise Unusable(name, f"no such file: {path}")
            read_regular(path, _MOST, follow=True)
        except (OSError, ValueError) as error:
            raise Unusable(name, f"can't be read: {getattr(error, 'strerror', None) or error}: {path}") from None
    try:
        # With a password given, an encrypted key fails here; without, OpenSSL would prompt on the terminal.
        server.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Unusable("key", f"doesn't belong to the certificate: {key}") from None
        if not _is_certificate(cert):
            raise Unusable("cert", f"expected a certificate in PEM: {cert}") from None
        raise Unusable("key", f"expected a private key in PEM, without a password: {key}") from None
    except (OSError, ValueError) as error:
        raise Unusable("key", f"can't be used: {error}") from None
    return server


def validity(cert: str) -> Validity:
    """Return when the first certificate of a file is valid; always if that can't be read.

    Python's ssl tells the dates of a peer's certificate only.

    :raises Unusable: the file can't be read.
    """
    try:
        pem = _PEM.search(read_regular(cert, _MOST, follow=True))
    except (OSError, ValueError) as error:
        raise Unusable("cert", f"can't be read: {getattr(error, 'strerror', None) or error}: {cert}") from None
    try:
        # RFC 5280, section 4.1: the signed part has, behind its version, number, algorithm, issuer and validity.
        der = binascii.a2b_base64(pem[1]) if pem else b""
        _, certificate = next(_elements(der))
        _, signed = next(_elements(certificate))
        fields = [content for tag, content in _elements(signed) if tag != _VERSION]
        begin, end = (_time(tag, content) for tag, content in _elements(fields[3]))
        return Validity(begin, end)
    except (IndexError, StopIteration, ValueError):
        return Validity()


def _time(tag: int, content: bytes) -> float:
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(content.decode("ascii"), form).replace(tzinfo=UTC).timestamp()


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each element."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length > 0x7F:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size])
            at += size
        yield tag, der[at : at + length]
        at += length


def _is_certificate(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True
