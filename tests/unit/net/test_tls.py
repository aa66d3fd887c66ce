"""The TLS context of a port: which files it takes, and which of them is at fault."""

from __future__ import annotations

import ssl

import pytest

from esl_apps.net import tls
from esl_apps.net.tls import Unusable, context
from tests.support import TLS

CERT, KEY, OTHER_KEY, LOCKED = (str(TLS / name) for name in ("one.pem", "one.key", "two.key", "locked.key"))


def fault(cert: str, key: str) -> tuple[str, str]:
    """The configuration key at fault, and the message up to its file."""
    with pytest.raises(Unusable) as caught:
        context(cert, key)
    return caught.value.key, str(caught.value).rpartition(": ")[0]


def test_tls_context_refuses_old_versions_and_renegotiation() -> None:
    server = context(CERT, KEY)
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2
    assert server.options & ssl.OP_NO_RENEGOTIATION
    assert server.protocol == ssl.PROTOCOL_TLS_SERVER


@pytest.mark.parametrize(
    ("cert", "key", "at_fault", "message"),
    [
        ("/nowhere/cert.pem", KEY, "cert", "no such file"),
        (CERT, "/nowhere/key.pem", "key", "no such file"),
        (CERT, "/etc", "key", "no such file"),
        (CERT, OTHER_KEY, "key", "doesn't belong to the certificate"),
        (KEY, KEY, "cert", "expected a certificate in PEM"),
        (CERT, CERT, "key", "expected a private key in PEM, without a password"),
        (CERT, LOCKED, "key", "expected a private key in PEM, without a password"),
    ],
)
def test_tls_unusable_file_is_named(cert: str, key: str, at_fault: str, message: str) -> None:
    assert fault(cert, key) == (at_fault, message)


def test_tls_path_that_no_system_takes_is_unusable() -> None:
    assert fault("a\0b", KEY)[0] == "cert"


def test_tls_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node runs as a user of its own, to whom the key's folder may be closed."""

    def closed(*_arguments: object, **_named: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tls, "read_regular", closed)
    assert fault(CERT, KEY) == ("cert", "can't be read: Permission denied")


def test_tls_key_that_vanishes_meanwhile_is_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    def vanished(*_args: object, **_options: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", vanished)
    with pytest.raises(Unusable, match="can't be used"):
        context(CERT, KEY)
