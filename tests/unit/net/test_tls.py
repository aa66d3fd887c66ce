"""The TLS context of a port: which files it takes, and which of them is at fault."""

from __future__ import annotations

import base64
import math
import ssl
from pathlib import Path

import pytest

from esl_apps.net import tls
from esl_apps.net.tls import Unusable, context
from tests.support import TLS
from tests.support.certificates import certificate

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


@pytest.mark.parametrize("form", ["CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"])
@pytest.mark.parametrize(
    ("end", "seconds"),
    [(b"\x18\x0f20261201000000Z", 1796083200.0), (b"\x17\x0d261201000000Z", 1796083200.0)],
)
def test_tls_certificate_expires_at_the_end_of_its_validity(
    tmp_path: Path, form: str, end: bytes, seconds: float
) -> None:
    file = Path(certificate(tmp_path, end, form))
    assert tls.validity(str(file)).end == seconds
    chain = file.read_text() + Path(CERT).read_text()
    file.write_text(chain)
    assert tls.validity(str(file)).end == seconds


@pytest.mark.parametrize("text", [b"", b"no certificate", b"\x30\x82"])
def test_tls_certificate_whose_end_cannot_be_read_has_none(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "cert.pem"
    file.write_bytes(b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(text) + b"-----END CERTIFICATE-----\n")
    assert tls.validity(str(file)) == (-math.inf, math.inf)
    file.write_bytes(text)
    assert tls.validity(str(file)) == (-math.inf, math.inf)


def test_tls_certificate_that_is_gone_is_unusable() -> None:
    with pytest.raises(Unusable, match=r"can't be read: No such file or directory: /nowhere/cert\.pem"):
        tls.validity("/nowhere/cert.pem")


def test_tls_key_that_vanishes_meanwhile_is_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    def vanished(*_args: object, **_options: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", vanished)
    with pytest.raises(Unusable, match="can't be used"):
        context(CERT, KEY)
