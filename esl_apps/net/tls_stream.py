"""TLS over a socket in small parts, so that a peer's records can't keep the event loop.

OpenSSL reads on while records come that carry nothing for the application: a TLS 1.3 peer may send KeyUpdates or
session tickets without an end, and ``SSLSocket.recv`` would not return before it pauses (hazard 37; 700 KB of
KeyUpdates took 0.9 s). Here OpenSSL sees only what was read from the socket: some KB, and a turn before each.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from ssl import MemoryBIO, SSLContext, SSLEOFError, SSLError, SSLWantReadError, SSLZeroReturnError
from typing import Any

#: Bytes for OpenSSL at a time: 150 KeyUpdates, which take some milliseconds.
_PART = 4096
#: Bytes of a handshake, and of records that carry nothing, after which the connection ends. One record with data has
#: 16 KB; OpenSSL takes 100 KB of certificates.
_HANDSHAKE, _NOTHING = 262_144, 65_536
#: Bytes to encrypt at a time.
_WRITE = 65_536


class TlsStream:
    """Takes the place of the socket. Used by one greenlet at a time; another one may call ``shutdown``."""

    def __init__(
        self,
        sock: Any,
        context: SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        turn: Callable[[], None],
    ) -> None:
        """``sock``: a socket, or anything with its ``recv`` and ``send``. ``turn``: called before each part; returns
        when this peer may do work."""
        self._sock = sock
        self._incoming, self._outgoing = MemoryBIO(), MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._turn = turn
        self._unsent = b""
        """Ciphertext that the socket has not taken."""

    # As a socket --------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # family, type, proto, fileno, getpeername, setsockopt, settimeout, shutdown, close
        return getattr(self._sock, name)

    def do_handshake(self) -> None:
        """:raises OSError: the peer doesn't speak TLS, is not who it should be, or has left."""
        left = _HANDSHAKE
        while True:
            try:
                self._tls.do_handshake()
                self._flush()
                return
            except SSLWantReadError:
                self._flush()
                left -= self._fill(left)
            except SSLError:
                # The peer should learn why.
                with suppress(OSError):
                    self._flush()
                raise

    def recv(self, size: int) -> bytes:
        """:raises OSError: the connection is broken, or the peer sends records without data."""
        left = _NOTHING
        while True:
            try:
                data = self._tls.read(size)
            except SSLWantReadError:
                # A KeyUpdate may ask for one of ours.
                self._flush()
                left -= self._fill(left)
            except (SSLZeroReturnError, SSLEOFError):
                return b""
            else:
                self._flush()
                return data

    def send(self, data: bytes | memoryview) -> int:
        """Send some of the data, and return how much. :raises OSError: the connection is broken, or took nothing in
        time."""
        self._flush()
        sent = self._tls.write(data[:_WRITE])
        # It is encrypted, so it has to be sent: before the next data, if not in time.
        with suppress(TimeoutError):
            self._flush()
        return sent

    def sendall(self, data: bytes) -> None:
        """:raises OSError: the connection is broken, or took no data in time."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.send(rest) :]
        self._flush()

    def pending(self) -> int:
        """How much has been read from the socket and not from here."""
        return self._tls.pending() + self._incoming.pending

    # ---------------------------------------------------------------------------------------------------

    def _fill(self, left: int) -> int:
        if left <= 0:
            raise OSError("TLS records without data")
        data = self._sock.recv(_PART)
        self._turn()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return len(data)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._unsent += self._outgoing.read()
        while self._unsent:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
