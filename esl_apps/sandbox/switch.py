"""The switch itself: its channels, phones, gateways, directory, routes and listeners."""

from __future__ import annotations

import itertools
import logging
import random
import re
import socket as stdlib_socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import gevent

from esl_apps.sandbox.leg import loopback
from esl_apps.sandbox.leg.channel import Application, Channel
from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.leg.state import State
from esl_apps.sandbox.phones import sofia
from esl_apps.sandbox.phones.gateway import Gateway
from esl_apps.sandbox.phones.phone import Dialog, Phone
from esl_apps.sandbox.phones.script import Script
from esl_apps.sandbox.protocols import Door, Leg
from esl_apps.sandbox.report import cdr
from esl_apps.sandbox.report.legs import Legs
from esl_apps.sandbox.run.bridge import bridge
from esl_apps.sandbox.run.dialplan import Dialplan
from esl_apps.sandbox.run.scheduler import Scheduler
from esl_apps.sandbox.run.session_limits import SessionLimits
from esl_apps.sandbox.run.sleeper import later
from esl_apps.sandbox.wire.events import Bus, Event

HEARTBEAT_SECONDS = 20.0
VERSION = "1.11.1-release"


def up_time(seconds: float) -> str:
    """Write a time span as ``status`` does."""
    micro = int(seconds * 1_000_000)
    seconds_, micro = divmod(micro, 1_000_000)
    milli, micro = divmod(micro, 1000)
    minutes, seconds_ = divmod(seconds_, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    years, days = divmod(days, 365)
    parts = [
        (years, "year"),
        (days, "day"),
        (hours, "hour"),
        (minutes, "minute"),
        (seconds_, "second"),
        (milli, "millisecond"),
        (micro, "microsecond"),
    ]
    return ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for n, name in parts)


class Switch:
    """One simulated FreeSWITCH."""

    endpoint_kinds = frozenset({"sofia", "loopback", "user", "error", "null"})

    def __init__(
        self,
        applications: Mapping[str, Application],
        commands: Mapping[str, Command],
        *,
        password: str = "ClueCon",  # noqa: S107 - FreeSWITCH's own default, as the sandbox is FreeSWITCH
        tick: float = 0.02,
        recordings: Path | None = None,
        spool: Path | None = None,
        legs: Legs | None = None,
        defaults: bool = False,
    ) -> None:
        self.password = password
        self.commands = dict(commands)
        self.tick = tick
        self.recordings = recordings
        self.spool = spool
        self.legs = legs
        self.domain = "127.0.0.1"
        self.log = logging.getLogger("esl_apps.sandbox")
        self.random = random.Random()  # noqa: S311 - UUIDs of a stand-in guard nothing
        self.started = time.time()
        self.bus = Bus(stdlib_socket.gethostname(), "sandbox", self.make_uuid())
        self.channels: dict[str, Channel] = {}
        self.listeners: set[Door] = set()
        self.scheduler = Scheduler()
        self.dialplan = Dialplan()
        self.globals: dict[str, str] = {
            "hold_music": "tone_stream://%(10000,0,333);loops=-1",
            "domain": self.domain,
            "domain_name": self.domain,
            "local_ip_v4": "127.0.0.1",
            "us-ring": "%(2000,4000,440,480)",
            "recordings_dir": str(recordings or "/tmp"),  # noqa: S108 - what FreeSWITCH would say
            "hostname": self.bus.hostname,
            "core_uuid": self.bus.core_uuid,
        }
        self.applications: dict[str, Application] = dict(applications)
        self.gateways: dict[str, Gateway] = {name: Gateway(name) for name in ("pstn", "pstn2", "silent")}
        self.gateways["silent"].silent = True
        self.limits = SessionLimits()
        self.extensions: dict[str, Phone] = {}
        self.outside: dict[str, Phone] = {}
        self.dialogs: dict[str, Dialog] = {}
        self.ended_dialogs: dict[str, Dialog] = {}
        self.stray_calls: list[Dialog] = []
        self.answer_anyone = defaults
        self.conferences: dict[str, list[Channel]] = {}
        self.peak = 0
        self._sessions = itertools.count(1)
        self._call_numbers = itertools.count(1)
        self.sessions_since_startup = 0
        if defaults:
            for number in range(1000, 1020):
                script = Script(answer_after=1.0, hangup_after=5.0, tone=400 + number - 1000)
                self.extensions[str(number)] = Phone(self, str(number), outside=False, script=script)
        later(HEARTBEAT_SECONDS, self._heartbeat)

    # -- small services -------------------------------------------------------------------------------

    def make_uuid(self) -> str:
        """Return a random (version 4) UUID."""
        bits = self.random.getrandbits(128)
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[bits >> 120 & 3]}{text[17:20]}-{text[20:]}"

    def next_session_id(self) -> int:
        """Return the number of a new session, counted from one."""
        self.sessions_since_startup += 1
        return next(self._sessions)

    def next_call_number(self) -> str:
        """Return a phone call's number for the control port, which isn't repeated after a restart."""
        return f"{int(self.started * 1000):x}-{next(self._call_numbers)}"

    def locate(self, uuid: str) -> Channel | None:
        """Find a leg that is up. One that has hung up isn't found, though its events still come."""
        channel = self.channels.get(uuid)
        return None if channel is None or channel.down else channel

    def report(self, where: str, error: BaseException) -> None:
        """Log a fault of the sandbox itself."""
        self.log.exception("%s failed: %r", where, error)

    def is_quick(self, app: str) -> bool:
        """Whether an application never waits, so that it can run in any greenlet."""
        application = self.applications.get(app.lower())
        return application is not None and application.quick

    def api(self, command: str, argument: str) -> str:
        """Return what ``fs_cli -x`` would print."""
        if self.bus.wanted("API"):
            headers = [("API-Command", command)]
            if argument:
                headers.append(("API-Command-Argument", argument))
            self.bus.fire(Event("API", after=headers))
        function = self.commands.get(command.lower())
        if function is None:
            return f"-ERR {command} Command not found!\n"
        try:
            return function(self, argument)
        except Exception as error:
            self.report(f"api {command}", error)
            return f"-ERR {error}\n"

    def api_text(self, command: str, argument: str) -> str:
        """Return the same without the final newline, for ``${…}``."""
        return self.api(command, argument).rstrip("\n")

    def spawn_api(self, command: str, argument: str) -> None:
        """Run a command in a greenlet of its own and drop its output."""
        gevent.spawn(self.api, command, argument)

    def load_dialplan(self, context: str, file: Path) -> None:
        """Load extensions in XML, with ``X-PRE-PROCESS`` and ``$${…}`` read as FreeSWITCH does.

        :raises ValueError: the context isn't one of the two.
        """
        if context not in self.dialplan.routes:
            raise ValueError(f"expected {' or '.join(self.dialplan.routes)} = FILE")
        text = file.read_text()
        self.globals.update(re.findall(r'<X-PRE-PROCESS cmd="set" data="(\w+)=([^"]*)"/>', text))
        text = re.sub(r"\$\$\{(\w+)\}", lambda match: self.globals.get(match[1], ""), text)
        self.dialplan.load(context, text)

    def _heartbeat(self) -> None:
        later(HEARTBEAT_SECONDS, self._heartbeat)
        up = int(time.time() - self.started)
        self.bus.fire(
            Event(
                "HEARTBEAT",
                after=[
                    ("Event-Info", "System Ready"),
                    ("Up-Time", up_time(time.time() - self.started)),
                    ("FreeSWITCH-Version", f"{VERSION}~64bit"),
                    ("Uptime-msec", str(up * 1000)),
                    ("Session-Count", str(len(self.channels))),
                    ("Max-Sessions", "5000"),
                    ("Session-Per-Sec", "1000"),
                    ("Session-Per-Sec-Last", "0"),
                    ("Session-Per-Sec-Max", "0"),
                    ("Session-Per-Sec-FiveMin", "0"),
                    ("Session-Since-Startup", str(self.sessions_since_startup)),
                    ("Session-Peak-Max", str(self.peak)),
                    ("Session-Peak-FiveMin", str(self.peak)),
                    ("Idle-CPU", "90.000000"),
                ],
            )
        )

    def write_cdr(self, channel: Channel) -> None:
        """Write mod_json_cdr's file, if a spool is set, and the witness's line."""
        if self.legs is not None:
            self.legs.write(channel)
        if self.spool is not None:
            try:
                cdr.write(channel, self.spool)
            except OSError as error:
                self.log.error("no CDR of %s: %s", channel.uuid, error)

    def ended(self, channel: Channel) -> None:
        """Drop what refers to a channel that has been destroyed."""
        for members in self.conferences.values():
            if channel in members:
                members.remove(channel)
        if channel.machine is not None:
            channel.machine.stop()
        channel.machine = None
        if isinstance(channel.endpoint, Dialog):
            # The phone remembers the call, but not its 50 kB of variables.
            channel.endpoint.uuid = channel.uuid
            channel.endpoint.channel = None

    # -- phones ---------------------------------------------------------------------------------------

    def directory_has(self, user: str) -> bool:
        """Whether a number is a user's: all of three and four digits are, registered or not."""
        return user.isdigit() and len(user) in (3, 4)

    def user_variables(self, user: str) -> list[tuple[str, str]]:
        """Return the variables that the directory sets on a user's legs."""
        return [
            ("toll_allow", "domestic,international,local"),
            ("accountcode", user),
            ("user_context", "default"),
            ("effective_caller_id_name", f"Extension {user}"),
            ("effective_caller_id_number", user),
            ("outbound_caller_id_name", "FreeSWITCH"),
            ("outbound_caller_id_number", "0000000000"),
            ("callgroup", "techsupport"),
        ]

    def contacts(self, user: str) -> list[str]:
        """Return the dial strings of a user's registrations."""
        phone = self.extensions.get(user)
        return phone.contacts() if phone else []

    def contact_string(self, user: str) -> str:
        """Return what ``sofia_contact`` prints."""
        return ",".join(self.contacts(user)) or "error/user_not_registered"

    def extension(self, number: str, script: Script | None, registrations: int) -> Phone:
        """Define an extension's phone, or give a known one a new script and forget its calls."""
        phone = self.extensions.get(number)
        if phone is None:
            phone = self.extensions[number] = Phone(self, number, outside=False)
        phone.script = script or Script()
        phone.calls = []
        before, phone.registrations = phone.registrations, registrations
        if registrations and not before:
            self._registered(number)
        return phone

    def _registered(self, number: str) -> None:
        headers = [
            ("profile-name", "internal"),
            ("from-user", number),
            ("from-host", self.domain),
            ("contact", f'"" <sip:{number}@127.0.0.1:20000>'),
            ("call-id", self.make_uuid()),
            ("rpid", "unknown"),
            ("status", "Registered(UDP)"),
            ("expires", "3600"),
            ("to-user", number),
            ("to-host", self.domain),
            ("network-ip", "127.0.0.1"),
            ("network-port", "20000"),
            ("username", number),
            ("realm", self.domain),
            ("user-agent", "esl_apps sandbox"),
        ]
        self.bus.fire(Event("CUSTOM", after=headers, subclass="sofia::register"))

    def outside_phone(self, number: str, script: Script | None) -> Phone:
        """Define a number behind the gateways."""
        phone = self.outside.get(number)
        if phone is None:
            phone = self.outside[number] = Phone(self, number, outside=True)
        phone.script = script or Script()
        phone.calls = []
        return phone

    def default_script(self, number: str) -> Script | None:
        """Return the script of an outside number that wasn't defined, by its last three digits (see ``--help``)."""
        if not self.answer_anyone:
            return None
        hz = 500 + int(number[-2:] or 0) if number[-2:].isdigit() else 500
        scripts = {
            "486": Script(reject=486, answer_after=0.5),
            "603": Script(reject=603, answer_after=0.5),
            "404": Script(reject=404, answer_after=0.2),
            "480": Script(reject=480, answer_after=0.5),
            "503": Script(reject=503, answer_after=0.2),
            "408": Script(answer_after=None),
            "183": Script(answer_after=2.0, hangup_after=5.0, tone=hz, early_media=True),
            "302": Script(reject=302, answer_after=0.2, redirect="1000@127.0.0.1"),
            "777": Script(answer_after=1.0, hangup_after=5.0, tone=hz, digits="1234#", digits_after=1.0),
        }
        return scripts.get(number[-3:], Script(answer_after=1.0, hangup_after=5.0, tone=hz))

    def call_began(self, dialog: Dialog) -> None:
        """Note that a phone's call began."""
        self.dialogs[dialog.ref] = dialog

    def call_ended(self, dialog: Dialog) -> None:
        """Note that a phone's call ended. It can still be found by its number."""
        if self.dialogs.pop(dialog.ref, None) is not None:
            self.ended_dialogs[dialog.ref] = dialog
            if len(self.ended_dialogs) > 20_000:
                del self.ended_dialogs[next(iter(self.ended_dialogs))]

    def find_dialog(self, ref: str) -> Dialog | None:
        """Find a phone's call by its number."""
        return self.dialogs.get(ref) or self.ended_dialogs.get(ref)

    # -- legs that the switch dials -------------------------------------------------------------------

    def outgoing(
        self, kind: str, data: str, variables: dict[str, str], profile: CallerProfile, caller: Channel | None
    ) -> tuple[Channel | None, str]:
        """Create a leg without starting it; None and a cause if that fails."""
        uuid = variables.get("origination_uuid") or self.make_uuid()
        if not self.limits.take(len(self.channels)):
            return None, "DESTINATION_OUT_OF_ORDER"
        if uuid in self.channels:
            # An id in use isn't given again, so only the first leg of a fork with ``origination_uuid`` rings.
            return None, "DESTINATION_OUT_OF_ORDER"
        if kind == "loopback":
            leg, cause = loopback.dial(self, data, uuid, profile, "origination_uuid" in variables)
        elif kind == "sofia":
            leg, cause = sofia.dial(self, data, uuid, profile, caller)
        else:
            return None, "DESTINATION_OUT_OF_ORDER"
        if leg is not None:
            self.peak = max(self.peak, len(self.channels) + 1)
            leg.register()
            leg.running_state = State.NONE
            leg.state = State.INIT
        elif kind == "sofia":
            sofia.unborn(self, profile)
        return leg, cause

    def start_leg(self, leg: Channel) -> None:
        """Send the INVITE."""
        if leg.down:
            return
        leg.run_state(State.INIT)
        leg.watch_headers()
        leg.state = State.ROUTING
        endpoint = leg.endpoint
        if isinstance(endpoint, Dialog):
            sofia.invite(self, leg, endpoint)
        leg.fire("CHANNEL_CREATE")
        leg.fire("CHANNEL_ORIGINATE")
        leg.run_state(State.ROUTING)
        leg.state = State.CONSUME_MEDIA
        leg.run_state(State.CONSUME_MEDIA)
        if isinstance(endpoint, Dialog):
            endpoint.invited()
        else:
            loopback.start(leg)

    # -- audio ----------------------------------------------------------------------------------------

    def tones_from(self, channel: Leg) -> set[int]:
        """Return the frequencies that a leg's far end sends."""
        endpoint = channel.endpoint
        if channel.down or channel.muted:
            return set()
        if isinstance(endpoint, Dialog):
            return endpoint.tones()
        if isinstance(endpoint, loopback.LoopbackEnd) and endpoint.other and endpoint.other.channel:
            return endpoint.other.channel.tones()
        return set()

    def shape_changed(self, *channels: Channel) -> None:
        """Tell recordings that the audio between legs has changed."""
        for channel in channels:
            for leg in (channel, channel.partner):
                if leg is not None:
                    for recording in leg.recordings.values():
                        recording.watch()

    # -- bridging two that are up ----------------------------------------------------------------------

    def run_pending_bridge(self, channel: Channel) -> None:
        """Run ``uuid_bridge`` in the first leg's greenlet."""
        other, channel.pending_bridge = channel.pending_bridge, None
        channel.transferring = False

        def busy(other: Channel) -> bool:
            return bool(other.running_state != State.HIBERNATE or channel.partner or other.partner)

        # Both first leave what they are doing. FreeSWITCH looks every 20 ms.
        while other is not None and not other.down and not channel.down and busy(other):
            gevent.sleep(_STATE_POLL)
        if other is None or other.down:
            channel.hangup()
            return
        other.transferring = False
        channel.other = ("originatee", other.profile.clone())
        for leg, peer in ((channel, other), (other, channel)):
            leg.fire("CHANNEL_EXECUTE", (), [("Application", "uuid_bridge"), ("Application-Data", peer.uuid)])
        bridge(channel, other)
        if not channel.down and channel.state == State.SOFT_EXECUTE:
            # Go on with the rest of its dialplan.
            channel.state = State.EXECUTE

    # -- between tests ----------------------------------------------------------------------------------

    def reset(self) -> None:
        """Hang everything up. Forget routes, outside phones and calls; keep extensions."""
        for channel in list(self.channels.values()):
            channel.no_cdr = False
            channel.hangup("MANAGER_REQUEST")
        self.dialplan.reset()
        self.outside.clear()
        self.stray_calls.clear()
        for gateway in self.gateways.values():
            gateway.fails, gateway.down = None, False
        self.limits.reset()
        for phone in self.extensions.values():
            phone.calls, phone.dead = [], 0


#: Seconds between two looks at another leg's state.
_STATE_POLL = 0.02
#: An API command, which returns what ``fs_cli -x`` prints.
Command = Callable[[Switch, str], str]
