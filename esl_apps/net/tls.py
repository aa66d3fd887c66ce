"""The TLS of a port: a certificate and its key, and what a client must at least speak."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path


class Unusable(Exception):
    """What is wrong with which of the two files: ``key`` is ``cert`` or ``key``."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def context(cert: str, key: str, kind: Callable[[int], ssl.SSLContext] = ssl.SSLContext) -> ssl.SSLContext:
    """A server's context for a certificate (with its chain) and its key, both PEM files.

    :param kind: the class of it; gevent has its own.
    :raises Unusable: a file can't be read, is no PEM, or the two do not belong together.
    """
    made = kind(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that asks for handshake after handshake on one connection costs us, not itself.
    made.options |= ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(["http/1.1"])
    for name, path in (("cert", cert), ("key", key)):
        try:
            if not Path(path).is_file():
                raise Unusable(name, f"no such file: {path}")
            Path(path).read_bytes()
        except (OSError, ValueError) as error:
            raise Unusable(name, f"can't be read: {getattr(error, 'strerror', None) or error}: {path}") from None
    try:
        # A password, so that a key that has one is refused here and not asked for on a terminal that nobody watches.
        made.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Unusable("key", f"is not the certificate's: {key}") from None
        if not _is_certificate(cert):
            raise Unusable("cert", f"expected a certificate in PEM: {cert}") from None
        raise Unusable("key", f"expected a private key in PEM, without a password: {key}") from None
    except (OSError, ValueError) as error:
        raise Unusable("key", f"can't be used: {error}") from None
    return made


def _is_certificate(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True
