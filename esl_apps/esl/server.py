"""The outbound event-socket server: FreeSWITCH's ``socket`` application connects here.

Calls are admitted when their connection is accepted. Closing a connection before ``connect`` strands its caller for
ever (hazard 10). So a call beyond the limit is accepted, ``connect`` is sent, and the channel is hung up with a cause.
Draining closes the *listening* socket, so that the switch tries its next node.

Anybody who reaches the port may connect. Until a peer has answered ``connect`` with a channel, it is a stranger: it has
some seconds, one frame of bounded size, and one of a bounded number of places. Whatever it does, it costs a line in the
log at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from gevent import socket
from gevent.server import StreamServer

from esl_apps.core.call import CallEnded
from esl_apps.esl.greenswitch_base import GreenswitchServer
from esl_apps.esl.session import Gone, OutboundSession, Silent, Unservable
from esl_apps.net.listening import listen

log = logging.getLogger(__name__)

#: The cause for callers who come while this node is full or draining: "switch equipment congestion".
FULL = "SWITCH_CONGESTION"
#: Connections that may wait to be accepted.
_BACKLOG = 1024
#: Connections being refused at once above which a warning is logged.
_REFUSALS = 256
#: Connections at once that have not answered ``connect``. The oldest makes place for the next: a switch answers within
#: milliseconds, so it isn't a call's. With ``session.FIRST_FRAME``, they hold 64 MB at most.
STRANGERS = 512


class Gate(Protocol):
    """Decides which peers are switches."""

    @property
    def secrets(self) -> Sequence[str]:
        """A switch knows one of them; empty: the address is enough."""

    def allows(self, address: str) -> bool:
        """Whether a switch may connect from this address."""


class _Open:
    """Every peer is a switch."""

    secrets: Sequence[str] = ()

    def allows(self, _address: str) -> bool:
        return True


class _Listener(StreamServer):
    def do_handle(self, sock: socket.socket, address: Any) -> None:
        """Start a session's greenlet. It closes its socket itself: gevent's function that does so afterwards is 0.7 KB
        of a held call, most of it C stack."""
        self._spawn(self.handle, sock, address)  # type: ignore[attr-defined]


class OutboundServer(GreenswitchServer):  # type: ignore[misc]
    """greenswitch's server without its 0.1 s accept poll and its silent refusals (hazards 3 and 10)."""

    def __init__(
        self,
        address: tuple[str, int],
        application: Callable[[OutboundSession], None],
        max_connections: int,
        *,
        shared: socket.socket | None = None,
        on_count: Callable[[int], None] | None = None,
        gate: Gate | None = None,
    ) -> None:
        """``application`` runs in a greenlet per call; the session is closed after it. ``shared``: a listening socket
        of several processes, in addition to this one's own. ``gate``: by default every peer is a switch.

        :raises OSError: the address is in use or is not this machine's.
        """
        # Not super().__init__(), which prepares for its own accept loop.
        self.application = application
        self.max_connections = max_connections
        self.connection_count = 0
        self.draining = False
        self._on_count = on_count or (lambda _count: None)
        self._refusing = 0
        self._gate = gate or _Open()
        #: Sessions that have not answered ``connect``, the oldest first.
        self._strangers: dict[OutboundSession, None] = {}
        self.server = _Listener(listen(address, _BACKLOG), self._accept)
        self._servers = [self.server]
        if shared is not None:
            common = _Listener(shared, self._accept)
            # Accept one at a time, so that the next goes to a process that is free.
            common.max_accept = 1
            self._servers.append(common)
        self.bound_port = int(self.server.address[1])

    def listen(self) -> None:
        """Start accepting; return at once."""
        for server in self._servers:
            server.start()

    def close_listener(self) -> None:
        """Accept no more connections. Calls go on; the switch gets "refused" and tries its next node.

        Connections that the kernel has already accepted are served first, or their callers would be stranded.
        """
        if self.draining:
            return
        self.draining = True
        # Nothing here yields to the event loop, so no connection can come between the last one and the closing.
        for server in self._servers:
            with suppress(OSError):
                while server.started and (accepted := server.do_read()) is not None:
                    server.do_handle(*accepted)
            server.close()

    def stop(self) -> None:
        self.close_listener()

    def _accept(self, sock: socket.socket, address: Any) -> None:
        if not self._gate.allows(address[0]):
            sock.close()
            return
        session = OutboundSession(address, sock)
        session.secrets = self._gate.secrets
        strangers = self._strangers
        if len(strangers) >= STRANGERS:
            next(iter(strangers)).close("others wait for its place")
        strangers[session] = None
        session.on_connected = self._known
        if self.draining or self.connection_count >= self.max_connections:
            self._refuse(session)
            return
        self.connection_count += 1
        self._on_count(self.connection_count)
        try:
            self.application(session)
        except (Gone, CallEnded) as gone:
            log.info("call_gone", extra={"reason": str(gone)})
        except Silent as silent:
            log.warning("switch_silent", extra={"uuid": session.uuid, "reason": str(silent)})
            if session.session_data is None:
                _hang_up_unheard(session, "NORMAL_TEMPORARY_FAILURE")
            else:
                _hang_up(session, "NORMAL_TEMPORARY_FAILURE")
        except Unservable as error:
            log.warning("call_refused", extra={"reason": str(error), "uuid": session.uuid})
            _hang_up(session, "NORMAL_TEMPORARY_FAILURE")
        except Exception:
            # A fault of ours: don't leave the caller in silence.
            log.exception("application_failed")
            _hang_up(session, "NORMAL_TEMPORARY_FAILURE")
        finally:
            strangers.pop(session, None)
            session.leave()
            self.connection_count -= 1
            self._on_count(self.connection_count)

    def _refuse(self, session: OutboundSession) -> None:
        self._refusing += 1
        try:
            if self._refusing > _REFUSALS:
                log.warning("refusals_piled_up", extra={"calls": self._refusing})
            _hang_up(session, FULL)
        finally:
            self._strangers.pop(session, None)
            session.close("refused")
            self._refusing -= 1

    def _known(self, session: OutboundSession) -> None:
        self._strangers.pop(session, None)


def _hang_up(session: OutboundSession, cause: str) -> None:
    """Hang the channel up, and wait for the hang-up before closing the socket."""
    try:
        if session.session_data is None:
            # If closed before connect, the caller would be parked for ever (hazard 10).
            with suppress(Unservable):
                session.connect()
        if not session.hung_up:
            session.hangup(cause)
        session.wait(lambda: session.hung_up, 2.0, past_hangup=True)
        session.leave()
    except Gone:
        session.close("gone")
    except Silent:
        _hang_up_unheard(session, cause)


def _hang_up_unheard(session: OutboundSession, cause: str) -> None:
    """Leave an order to hang up for a stopped switch, which reads it when it resumes. ``connect`` alone would strand
    the caller."""
    with suppress(Gone):
        session.hangup(cause)
    session.close("no answer")
