"""A client's commands on its event-socket connection."""

from __future__ import annotations

import time

import gevent

from esl_apps.sandbox.doors.connection import Connection
from esl_apps.sandbox.run.sleeper import later
from esl_apps.sandbox.wire import strings, wire
from esl_apps.sandbox.wire.event_names import MYEVENTS, NAMES
from esl_apps.sandbox.wire.events import Event

PARKS_WITHIN = 0.005
"""Seconds from ``connect`` to the channel's park."""
LOG_LEVELS = ("console", "alert", "crit", "err", "warning", "notice", "info", "debug")


class Listener(Connection):
    """A connection that runs its client's commands."""

    def answer(self, command: wire.Command) -> bytes | None:
        """Run one command; return its reply, or None if that is written already."""
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
            # FreeSWITCH's channel checks about every millisecond. A client that closes before that strands it.
            later(0.002, self._park)
        else:
            self._park()

    def _park(self) -> None:
        """Wake the channel: its application is connected."""
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
                    (header, wanted)
                    for header, wanted in filters
                    if header.lower() != name.lower() or (value and wanted != value)
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
            channel = self.switch.locate(uuid)
            if channel is None:
                return wire.reply("-ERR invalid uuid")
            self.channel = channel
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
        # The client's own headers come first, even its Event-Name.
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
        any_known = custom = False
        for word in words:
            name = word.upper().removeprefix("SWITCH_EVENT_")
            if custom:
                subscription.subclasses.add(word)
            elif name in NAMES:
                any_known = True
                subscription.names.add(name)
                custom = name == "CUSTOM"
        if not any_known:
            return wire.reply("-ERR no keywords supplied")
        subscription.enabled = True
        self.switch.bus.subscribe(self)
        return wire.reply(f"+OK event listener enabled {subscription.format}")

    def _nixevent(self, command: wire.Command) -> bytes:
        subscription = self.subscription
        any_known = custom = False
        for word in command.line.split(" ")[1:]:
            name = word.upper()
            if custom:
                subscription.subclasses.discard(word)
            elif name in NAMES:
                any_known = True
                if name == "CUSTOM":
                    custom = True
                elif name == "ALL":
                    subscription.names.clear()
                else:
                    if "ALL" in subscription.names:
                        subscription.names |= NAMES
                        subscription.names.discard("ALL")
                    subscription.names.discard(name)
        if not any_known:
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
