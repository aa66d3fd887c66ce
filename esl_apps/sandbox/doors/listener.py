"""One event-socket connection, of either direction: a client's commands, and the events that it gets.

``serve`` runs in the connection's own greenlet. Events are written when the switch would look at the
socket: every tick after its last activity, or at once with the tick off; never between a command and its
reply. Writing never blocks whoever fires an event: what a stalled client does not take waits here.
"""

from __future__ import annotations

import contextlib
import errno
import socket as stdlib_socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import gevent
from gevent import socket

from esl_apps.sandbox.run.sleeper import Handle, at_most, later
from esl_apps.sandbox.wire import strings, wire
from esl_apps.sandbox.wire.events import MYEVENTS, NAMES, Event, Subscription

if TYPE_CHECKING:
    from esl_apps.sandbox.leg.channel import Channel
    from esl_apps.sandbox.switch import Switch

GOODBYE = "Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"
MAX_BACKLOG = 256 * 1024 * 1024
"""Bytes that a client may leave unread before it is cut off."""
FIRST_COMMAND = 25.0
"""Seconds within which a client must say something."""
PARKS_WITHIN = 0.005
"""Seconds from ``connect`` to the channel's park."""
LOG_LEVELS = ("console", "alert", "crit", "err", "warning", "notice", "info", "debug")


class Listener:
    """See the module. ``channel`` is None for an inbound connection."""

    def __init__(
        self,
        switch: Switch,
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
        """``async``: commands go to the channel's queue; if not, the channel runs them while it waits."""
        self.subscription = Subscription(channel.uuid if channel else None)
        if channel is not None:
            channel.pins += 1
        self.connected = False
        """``connect`` was received."""
        self.served = False
        """A client that was connected for longer than it takes the channel to park has said something: the channel
        would be parked by now, however late a busy sandbox comes to it."""
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

    # -- the connection's life ------------------------------------------------------------------------

    def serve(self) -> None:
        """Read and obey until either side ends it."""
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
        """Read once and run what is whole; false at the end of the stream."""
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
        """``socket`` without ``async``: the channel's own greenlet runs the commands."""
        channel = self.channel
        assert channel is not None
        while not self.finished:
            if self._commands:
                self.obey(self._commands.popleft())
            elif not self._running:
                # The reader sees the end by itself.
                self._shut()
                channel.sleeper.sleep(0.02)
            else:
                channel.sleeper.sleep(None)

    def obey(self, command: wire.Command) -> None:
        """Run one command and write its reply, then the events that waited."""
        self._busy = self._heard = True
        try:
            answer = self._command(command)
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
            if channel.listener is self:
                channel.listener = None
            # What lets a parked channel go on with its dialplan.
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
        """Queue an event; its text is made now, while the channel is as it was."""
        event.frame(self.subscription.format)
        self._events.append(event)
        self._schedule()

    def take_diverted(self) -> None:
        """Events for this session alone are there."""
        self._schedule()

    def channel_down(self) -> None:
        """The controlled channel hung up: see to it at the next look."""
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
                # Whole seconds of the clock, as the switch counts.
                later(int(time.time()) + self._linger + 1 - time.time(), self._end)

    def _end(self) -> None:
        if not self.finished:
            self._running = False
            self._shut()

    # -- commands -------------------------------------------------------------------------------------

    def _command(self, command: wire.Command) -> bytes | None:
        line = command.line
        lower = line.lower()
        if lower.startswith(("exit", "...")):
            self._running = False
            self._write(wire.reply("+OK bye"))
            self._shut()
            return None
        if not self._authed:
            return self._auth(line, lower)
        if self.connected and time.monotonic() - self._connected_at > PARKS_WITHIN:
            self.served = True
        if lower.startswith("filter "):
            return self._filter(line[7:])
        if self.channel is not None and lower.startswith("resume"):
            self.channel.set("socket_resume", "true")
            return wire.reply("+OK")
        if self.channel is not None:
            if lower.startswith("connect"):
                self._connect()
                return None
            if lower.startswith("getvar"):
                _, _, name = line.partition(" ")
                value = self.channel.lookup(name) or ""
                return wire.reply(value or "-ERR command not found")
        if lower.startswith("myevents") and (self.channel is not None or lower.startswith("myevents ")):
            return self._myevents(line, lower)
        if lower.startswith("divert_events"):
            return self._divert(line[13:].strip())
        if lower.startswith("sendmsg"):
            return self._sendmsg(command)
        if self._outbound and not self.full:
            return wire.reply("-ERR command not found")
        for prefix, handler in (
            ("sendevent", self._sendevent),
            ("api ", self._api),
            ("bgapi ", self._bgapi),
            ("log", self._log),
            ("linger", self._lingering),
            ("nolinger", self._nolinger),
            ("nolog", self._nolog),
            ("event", self._event),
            ("nixevent", self._nixevent),
            ("noevents", self._noevents),
        ):
            if lower.startswith(prefix):
                return handler(command)
        return wire.reply("-ERR command not found")

    def _auth(self, line: str, lower: str) -> bytes | None:
        if lower.startswith("auth "):
            if line[5:] == self.switch.password:
                self._authed = True
                return wire.reply("+OK accepted")
            self._running = False
            self._write(wire.reply("-ERR invalid"))
            self._shut()
            return None
        return wire.reply("-ERR command not found")

    def _connect(self) -> None:
        channel = self.channel
        assert channel is not None
        event = self.switch.bus.stamp(Event("CHANNEL_DATA", channel))
        event.before = channel.profile.headers("Channel")
        event.after = (
            ("Content-Type", "command/reply"),
            ("Reply-Text", "+OK\n"),
            ("Socket-Mode", "async" if self.threaded else "static"),
            ("Control", "full" if self.full else "single-channel"),
        )
        self._write(event.plain())
        self.connected = True
        self._connected_at = time.monotonic()
        if self.switch.tick:
            # The channel looks every millisecond or so; a client that closes before then strands it.
            later(0.002, self._park)
        else:
            self._park()

    def _park(self) -> None:
        """Let the channel see that its application is there."""
        if self.channel is not None:
            self.channel.sleeper.wake(at_once=True)

    def _filter(self, argument: str) -> bytes:
        name, _, value = argument.lstrip(" ").partition(" ")
        filters = self.subscription.filters
        if name.lower() == "delete" and value:
            name, _, value = value.partition(" ")
            if name.lower() == "all":
                filters.clear()
            else:
                filters[:] = [
                    (known, wanted)
                    for known, wanted in filters
                    if known.lower() != name.lower() or (value and wanted != value)
                ]
            answer = f"+OK filter deleted. [{name}][{value}]"
        elif value:
            if name.lower() == "add":
                name, _, value = value.partition(" ")
            filters.append((name, value))
            answer = f"+OK filter added. [{name}]=[{value}]"
        else:
            return wire.reply("-ERR invalid syntax")
        self.switch.bus.subscribe(self)
        return wire.reply(answer)

    def _myevents(self, line: str, lower: str) -> bytes:
        subscription = self.subscription
        if subscription.own:
            return wire.reply("-ERR aready enabled.")
        if self.channel is None:
            uuid = line[9:].split(" ", maxsplit=1)[0]
            found = self.switch.locate(uuid)
            if found is None:
                return wire.reply("-ERR invalid uuid")
            self.channel = found
            subscription.uuid = uuid
        subscription.names |= MYEVENTS
        subscription.own = subscription.enabled = True
        if "json" in lower:
            subscription.format = "json"
        self.switch.bus.subscribe(self)
        return wire.reply("+OK Events Enabled")

    def _divert(self, value: str) -> bytes:
        if self.channel is None:
            return wire.reply("-ERR not controlling a session.")
        if not value:
            return wire.reply("-ERR missing value.")
        self.channel.divert_events = value.lower() == "on"
        return wire.reply("+OK events diverted" if self.channel.divert_events else "+OK events not diverted")

    def _sendmsg(self, command: wire.Command) -> bytes:
        uuid = command.line[7:].strip(" ") or command.get("session-id") or ""
        own = self.channel
        if own is not None and uuid in ("", own.uuid):
            if self.threaded or strings.true(command.get("async")):
                own.queue_command(command)
            else:
                own.parse_event(command)
            return wire.reply("+OK")
        channel = self.switch.locate(uuid)
        if channel is None:
            return wire.reply(f"-ERR invalid session id [{uuid}]")
        channel.queue_command(command)
        return wire.reply("+OK")

    def _sendevent(self, command: wire.Command) -> bytes:
        name = command.line[9:].strip(" \t").upper() or "CLONE"
        uuid = self.switch.make_uuid()
        event = Event(name if name in NAMES else "CLONE", body=command.body)
        # The client's own headers come first, its Event-Name too: who reads takes the switch's.
        headers = [(key, value) for key, value in command.headers if key.lower() != "content-length"]
        event.head = [("Command", command.line), *headers, ("Event-UUID", uuid)]
        if event.name == "CUSTOM":
            event.subclass = command.get("event-subclass") or ""
        target = self.switch.locate(command.get("unique-id") or "")
        if target is not None:
            target.queue_event(event)
        else:
            subclass, event.subclass = event.subclass, ""
            self.switch.bus.stamp(event, ("mod_event_socket.c", "parse_command", 2277))
            event.subclass = subclass
            self.switch.bus.publish(event)
        return wire.reply(f"+OK {uuid}")

    def _api(self, command: wire.Command) -> bytes:
        name, _, argument = command.line[4:].partition(" ")
        return wire.api_response(self.switch.api(name, argument))

    def _bgapi(self, command: wire.Command) -> bytes:
        name, _, argument = command.line[6:].partition(" ")
        job = command.get("job-uuid") or self.switch.make_uuid()
        owner = self.channel.uuid if self.channel else ""
        gevent.spawn(self._job, job, owner, name, argument)
        return wire.reply(f"+OK Job-UUID: {job}", ("Job-UUID", job))

    def _job(self, job: str, owner: str, name: str, argument: str) -> None:
        body = self.switch.api(name, argument) or "Command returned no output!"
        headers = [("Job-UUID", job)]
        if owner:
            headers.append(("Job-Owner-UUID", owner))
        headers.append(("Job-Command", name))
        if argument:
            headers.append(("Job-Command-Arg", argument))
        self.switch.bus.fire(Event("BACKGROUND_JOB", after=headers, body=body))

    def _log(self, command: wire.Command) -> bytes:
        level = command.line[3:].strip().split(" ")[0]
        if level and not level.isdigit() and level.lower() not in LOG_LEVELS:
            return wire.reply("-ERR invalid log level")
        number = int(level) if level.isdigit() else LOG_LEVELS.index(level.lower()) if level else 7
        return wire.reply(f"+OK log level {level} [{number}]")

    def _nolog(self, command: wire.Command) -> bytes:
        del command
        return wire.reply("+OK no longer logging")

    def _lingering(self, command: wire.Command) -> bytes:
        if self.channel is None:
            return wire.reply("-ERR not controlling a session")
        seconds = command.line[7:] if command.line[6:7] == " " else ""
        if seconds:
            self._linger = strings.number(seconds)
            return wire.reply(f"+OK will linger {self._linger} seconds")
        self._linger = -1
        return wire.reply("+OK will linger")

    def _nolinger(self, command: wire.Command) -> bytes:
        del command
        if self.channel is None:
            return wire.reply("-ERR not controlling a session")
        self._linger = None
        return wire.reply("+OK will not linger")

    def _event(self, command: wire.Command) -> bytes:
        subscription = self.subscription
        words = command.line.split(" ")[1:]
        if words and words[0].lower() in ("plain", "json", "xml"):
            subscription.format = words.pop(0).lower()
        known = custom = False
        for word in words:
            name = word.upper().removeprefix("SWITCH_EVENT_")
            if custom:
                subscription.subclasses.add(word)
            elif name in NAMES:
                known = True
                subscription.names.add(name)
                custom = name == "CUSTOM"
        if not known:
            return wire.reply("-ERR no keywords supplied")
        subscription.enabled = True
        self.switch.bus.subscribe(self)
        return wire.reply(f"+OK event listener enabled {subscription.format}")

    def _nixevent(self, command: wire.Command) -> bytes:
        subscription = self.subscription
        known = custom = False
        for word in command.line.split(" ")[1:]:
            name = word.upper()
            if custom:
                subscription.subclasses.discard(word)
            elif name in NAMES:
                known = True
                if name == "CUSTOM":
                    custom = True
                elif name == "ALL":
                    subscription.names.clear()
                else:
                    if "ALL" in subscription.names:
                        subscription.names |= NAMES
                        subscription.names.discard("ALL")
                    subscription.names.discard(name)
        if not known:
            return wire.reply("-ERR no keywords supplied")
        subscription.enabled = True
        self.switch.bus.subscribe(self)
        return wire.reply("+OK events nixed")

    def _noevents(self, command: wire.Command) -> bytes:
        del command
        subscription = self.subscription
        self._events.clear()
        if not subscription.enabled:
            return wire.reply("-ERR not listening for events")
        subscription.enabled = False
        subscription.names.clear()
        subscription.subclasses.clear()
        self.switch.bus.unsubscribe(self)
        return wire.reply("+OK no longer listening for events")


def connect(host: str, port: int) -> Any:
    """A connection to an application; blocks as long as the network does, as the switch does."""
    family = stdlib_socket.AF_INET6 if ":" in host else stdlib_socket.AF_INET
    sock = socket.socket(family, stdlib_socket.SOCK_STREAM)
    try:
        sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock
