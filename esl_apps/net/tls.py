"""The TLS context of a port: its certificate and key, and the lowest version for clients."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from esl_apps.process.files import read_regular

#: Bytes of a certificate with its chain.
_MOST = 1 << 20


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


def _is_certificate(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True
