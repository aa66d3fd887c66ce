"""The outbound event-socket server: FreeSWITCH's ``socket`` application connects here.

Admission is decided where a connection is accepted. A connection that is closed before ``connect`` strands
its caller for ever (hazard 10), so a call beyond the limit is taken, ``connect`` is sent and the channel is
hung up with a cause; draining closes the *listening* socket, so that the switch tries its next node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gevent import socket
from gevent.server import StreamServer

from esl_apps.core.call import CallEnded
from esl_apps.esl.greenswitch_base import GreenswitchServer
from esl_apps.esl.session import Gone, OutboundSession, Silent
from esl_apps.net.listening import listen

log = logging.getLogger(__name__)

#: ``switch equipment congestion``: what a caller gets when this node is full or draining (contract §3).
FULL = "SWITCH_CONGESTION"
#: Connections that wait to be accepted.
_BACKLOG = 1024
#: Connections that are being refused at one time; past it the log says so.
_REFUSALS = 256
#: Seconds for a switch to answer a call that is hung up.
_PATIENCE = 5.0


class OutboundServer(GreenswitchServer):  # type: ignore[misc]
    """greenswitch's server without its 0.1 s accept poll and with no silent refusal (hazards 3 and 10)."""

    def __init__(
        self,
        address: tuple[str, int],
        application: Callable[[OutboundSession], None],
        max_connections: int,
        *,
        shared: socket.socket | None = None,
        on_count: Callable[[int], None] | None = None,
    ) -> None:
        """``application`` runs in a greenlet of its own for each call; the session is closed after it. ``shared``: a
        listening socket of several processes, beside this one's own.

        :raises OSError: the address is in use or is not this machine's.
        """
        # Not super().__init__(): it logs and stores what StreamServer does here.
        self.application = application
        self.max_connections = max_connections
        self.connection_count = 0
        self.draining = False
        self._on_count = on_count or (lambda _count: None)
        self._refusing = 0
        self.server = StreamServer(listen(address, _BACKLOG), self._accept)
        self._servers = [self.server]
        if shared is not None:
            common = StreamServer(shared, self._accept)
            # The next one is for whoever is free.
            common.max_accept = 1
            self._servers.append(common)
        self.bound_port = int(self.server.address[1])

    def listen(self) -> None:
        """Start to accept; returns at once."""
        for server in self._servers:
            server.start()

    def close_listener(self) -> None:
        """Take no further connection. Calls go on; the switch gets "refused" and takes its next node.

        What the kernel had accepted before is served first, or its callers would be stranded.
        """
        if self.draining:
            return
        self.draining = True
        # No turn of the loop in here, and so no gap between the last one and the closing.
        for server in self._servers:
            with suppress(OSError):
                while server.started and (accepted := server.do_read()) is not None:
                    server.do_handle(*accepted)
            server.close()

    def stop(self) -> None:
        self.close_listener()

    def _accept(self, sock: socket.socket, address: Any) -> None:
        session = OutboundSession(address, sock)
        if self.draining or self.connection_count >= self.max_connections:
            self._refuse(session)
            return
        self.connection_count += 1
        self._on_count(self.connection_count)
        try:
            self.application(session)
        except (Gone, CallEnded) as gone:
            log.info("call gone", extra={"reason": str(gone)})
        except Silent as silent:
            log.warning("switch_silent", extra={"uuid": session.uuid, "reason": str(silent)})
            _hang_up(session, "NORMAL_TEMPORARY_FAILURE")
        except Exception:
            # A fault here is ours; the caller must not pay for it with silence.
            log.exception("application failed")
            _hang_up(session, "NORMAL_TEMPORARY_FAILURE")
        finally:
            session.leave()
            self.connection_count -= 1
            self._on_count(self.connection_count)

    def _refuse(self, session: OutboundSession) -> None:
        self._refusing += 1
        try:
            if self._refusing > _REFUSALS:
                log.warning("refusing more calls at once than is reasonable", extra={"calls": self._refusing})
            _hang_up(session, FULL)
        finally:
            self._refusing -= 1


def _hang_up(session: OutboundSession, cause: str) -> None:
    """Hang the channel up and see it go before the socket closes."""
    try:
        if session.session_data is None:
            # Closed before that, the caller is parked for ever (hazard 10).
            session.connect(timeout=_PATIENCE)
        if not session.hung_up:
            session.hangup(cause)
        session.wait(lambda: session.hung_up, 2.0, past_hangup=True)
        session.leave()
    except Gone:
        session.close("gone")
    except Silent:
        # A stopped switch reads it when it goes on; ``connect`` alone would strand the caller then.
        with suppress(Gone):
            session.hangup(cause)
        session.close("no answer")
