"""One event-socket connection, in either direction: its life, and the events that it gets.

``serve`` runs in the connection's own greenlet. Events are written when the switch would check the socket: every tick
after its last activity, or at once if the tick is off, but never between a command and its reply. Writing never blocks
the code that fires an event: what a stalled client doesn't read waits here.
"""

from __future__ import annotations

import contextlib
import errno
import socket as stdlib_socket
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import Any

import gevent
from gevent import socket

from esl_apps.sandbox.leg.channel import Channel, Switchboard
from esl_apps.sandbox.run.sleeper import Handle, at_most, later
from esl_apps.sandbox.wire import wire
from esl_apps.sandbox.wire.events import Event, Subscription

GOODBYE = "Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"
MAX_BACKLOG = 256 * 1024 * 1024
"""Bytes that a client may leave unread before it is cut off."""
FIRST_COMMAND = 25.0
"""Seconds within which a client must send its first command."""


class Connection(ABC):
    """See the module's docstring. ``channel`` is None for an inbound connection."""

    def __init__(
        self,
        switch: Switchboard,
        sock: Any,
        channel: Channel | None = None,
        *,
        full: bool = True,
        threaded: bool = True,
    ) -> None:
        self.switch = switch
        self.channel = channel
        self.full = full
        self.threaded = threaded
        """The socket is ``async``: commands go to the channel's queue. If not, the channel runs them while it waits."""
        self.subscription = Subscription(channel.uuid if channel else None)
        if channel is not None:
            channel.pins += 1
        self.connected = False
        """The client has sent ``connect``."""
        self.served = False
        """The client sent something after the channel had had the time to park, so it counts as parked, even if a busy
        sandbox hasn't come to it yet."""
        self.finished = False
        self._connected_at = 0.0
        self._outbound = channel is not None
        self._sock = sock
        self._authed = channel is not None
        self._running = True
        self._heard = False
        self._silent = False
        self._reader = wire.CommandReader()
        self._commands: deque[wire.Command] = deque()
        self._events: deque[Event] = deque()
        self._backlog = bytearray()
        self._writing = False
        self._busy = False
        self._active = time.monotonic()
        self._flush: Handle | None = None
        self._linger: int | None = None
        self._down_handled = False

    @abstractmethod
    def answer(self, command: wire.Command) -> bytes | None:
        """Run one command; return its reply, or None if that is written already."""

    # -- the connection's life ------------------------------------------------------------------------

    def serve(self) -> None:
        """Read and run commands until either side ends the connection."""
        self.switch.listeners.add(self)
        try:
            if not self._authed:
                self._write(b"Content-Type: auth/request\n\n")
            with at_most(FIRST_COMMAND):
                while not self._heard and self._running and self._round():
                    pass
            while self._heard and self._running and self._round():
                pass
        except OSError:
            pass
        except Exception as error:
            self.switch.report("event socket", error)
        finally:
            self._finish()

    def _round(self) -> bool:
        """Read once and run the complete commands; False at the end of the stream."""
        data = self._sock.recv(65536)
        if not data:
            return False
        for command in self._reader.feed(data):
            if not self._running:
                break
            if self._outbound and not self.threaded and self.channel is not None:
                self._heard = True
                self._commands.append(command)
                self.channel.sleeper.wake(at_once=True)
            else:
                self.obey(command)
        return True

    def run_inline(self) -> None:
        """Run the commands in the channel's own greenlet: for ``socket`` without ``async``."""
        channel = self.channel
        assert channel is not None
        while not self.finished:
            if self._commands:
                self.obey(self._commands.popleft())
            elif not self._running:
                # The reader will see the end.
                self._shut()
                channel.sleeper.sleep(0.02)
            else:
                channel.sleeper.sleep(None)

    def obey(self, command: wire.Command) -> None:
        """Run one command and write its reply, then the events that waited."""
        self._busy = self._heard = True
        try:
            answer = self.answer(command)
            if answer is not None:
                self._write(answer)
        finally:
            self._busy = False
            self._active = time.monotonic()
        if self._events or (self.channel is not None and self.channel.down):
            self._flush_now()

    def cut(self) -> None:
        """Drop the connection without a goodbye."""
        self._silent = True
        self._running = False
        self._shut()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(stdlib_socket.SHUT_RDWR if self._silent else stdlib_socket.SHUT_RD)

    def _finish(self) -> None:
        if self.finished:
            return
        self.finished = True
        self._running = False
        self.switch.listeners.discard(self)
        self.switch.bus.unsubscribe(self)
        if self._flush is not None:
            self._flush.cancel()
        self._events.clear()
        if not self._silent:
            self._write(wire.disconnect_notice(self.subscription.uuid, GOODBYE))
        gevent.spawn(self._close)
        channel = self.channel
        if channel is not None:
            if self in channel.listeners:
                channel.listeners.remove(self)
            # This lets a parked channel go on with its dialplan.
            channel.controlled = False
            if self._outbound:
                channel.pins -= 1
            channel.wake()
            channel.release()

    def _close(self) -> None:
        with at_most(2.0):
            while self._writing:
                gevent.sleep(0.01)
        with contextlib.suppress(OSError):
            self._sock.shutdown(stdlib_socket.SHUT_RDWR)
        self._sock.close()

    # -- writing --------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._writing:
            self._backlog += data
            if len(self._backlog) > MAX_BACKLOG:
                self.cut()
            return
        try:
            sent = self._sock.send(data, timeout=0.0)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK):
                self.cut()
                return
            sent = 0
        if sent < len(data):
            self._backlog += data[sent:]
            self._writing = True
            gevent.spawn(self._write_backlog)

    def _write_backlog(self) -> None:
        try:
            while self._backlog:
                chunk = bytes(self._backlog[:262144])
                del self._backlog[: len(chunk)]
                self._sock.sendall(chunk)
        except OSError:
            self._backlog.clear()
        finally:
            self._writing = False

    # -- events ---------------------------------------------------------------------------------------

    def deliver(self, event: Event) -> None:
        """Queue an event. Its text is made now, from the channel's present state."""
        event.frame(self.subscription.format)
        self._events.append(event)
        self._schedule()

    def take_diverted(self) -> None:
        """Note that events for this session only are queued."""
        self._schedule()

    def channel_down(self) -> None:
        """Note that the controlled channel hung up, and handle it at the next tick."""
        self._schedule()

    def _schedule(self) -> None:
        if self._flush is not None or self._busy or self.finished:
            return
        tick = self.switch.tick
        if not tick:
            self._flush = later(0, self._flush_now)
            return
        now = time.monotonic()
        elapsed = now - self._active
        self._flush = later(tick - elapsed % tick, self._flush_now)

    def _flush_now(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self.finished:
            return
        channel = self.channel
        subscription = self.subscription
        if channel is not None and channel.divert_events and not channel.down and subscription.enabled:
            while channel.queued_events:
                self._events.append(channel.queued_events.popleft())
        if self._events and subscription.enabled:
            frames = [event.frame(subscription.format) for event in self._events]
            self._events.clear()
            self._write(b"".join(frames))
            self._active = time.monotonic()
        if channel is not None and channel.down and not self._down_handled:
            self._down_handled = True
            if self._linger is None:
                self._running = False
                self._shut()
                return
            self._write(wire.linger_notice(channel.uuid, channel.name, self._linger))
            if self._linger >= 0:
                # The switch counts whole seconds of the clock.
                later(int(time.time()) + self._linger + 1 - time.time(), self._end)

    def _end(self) -> None:
        if not self.finished:
            self._running = False
            self._shut()


def connect(host: str, port: int) -> Any:
    """Connect to an application. Without a time-out, as in FreeSWITCH."""
    family = stdlib_socket.AF_INET6 if ":" in host else stdlib_socket.AF_INET
    sock = socket.socket(family, stdlib_socket.SOCK_STREAM)
    try:
        sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock
