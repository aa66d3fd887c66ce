"""A channel: one leg of a call, its variables, states and events, and the greenlet that runs its dialplan.

FreeSWITCH gives every session a thread. Here a channel has a greenlet only while it has something to run
(dialplan, an application, a bridge that it originated); the called leg of a bridge has none. What a command
may do to a running application — commands run inside it, break it, wait behind an ``event-lock`` — follows
the switch's own loop: applications call `Channel.idle`, which runs queued commands first.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

import gevent

from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.run.sleeper import Handle, Sleeper, later
from esl_apps.sandbox.wire import causes, strings
from esl_apps.sandbox.wire.events import Event, Headers
from esl_apps.sandbox.wire.wire import Command, url_encode

if TYPE_CHECKING:
    from esl_apps.sandbox.doors.listener import Listener
    from esl_apps.sandbox.leg.bindings import DigitMachine
    from esl_apps.sandbox.leg.media import Recording
    from esl_apps.sandbox.switch import Switch


class State(IntEnum):
    """Channel states; ``Channel-State-Number`` is the value."""

    NEW = 0
    INIT = 1
    ROUTING = 2
    SOFT_EXECUTE = 3
    EXECUTE = 4
    EXCHANGE_MEDIA = 5
    PARK = 6
    CONSUME_MEDIA = 7
    HIBERNATE = 8
    RESET = 9
    HANGUP = 10
    REPORTING = 11
    DESTROY = 12
    NONE = 13
    """Only as what runs: the leg is made, nothing runs it yet."""


Tones = set[int]
"""Frequencies in Hz."""
CALL_STATES = ("DOWN", "DIALING", "RINGING", "EARLY", "ACTIVE", "HELD", "RING_WAIT", "HANGUP", "UNHELD")


class Endpoint(Protocol):
    """The far end of a channel: what the switch can tell it. Nothing in here blocks."""

    kind: str
    """``sofia`` or ``loopback``: the ``originate_endpoint``."""

    def ring(self) -> None:
        """Tell a caller that the callee rings (180)."""

    def progress(self) -> None:
        """Give a caller early media (183)."""

    def answer(self) -> None:
        """Answer a caller (200)."""

    def respond(self, status: int, reason: str) -> None:
        """Refuse a caller with this very response."""

    def hangup(self, cause: str) -> None:
        """End the call: BYE, CANCEL or a refusal, and the variables that say which."""

    def digit(self, digit: str) -> None:
        """Play a digit to the far end."""

    def hold(self, on: bool) -> None:
        """Put the far end on hold, or take it off."""


@dataclass(slots=True)
class Dtmf:
    """One received digit."""

    digit: str
    duration: int = 2000
    source: str = "RTP"
    sensitive: bool = False


@dataclass(slots=True)
class Executed:
    """One line of the application log, for the CDR."""

    app: str
    data: str
    stamp: int


def microseconds() -> int:
    """Now, in the switch's unit."""
    return int(time.time() * 1_000_000)


class Channel:
    """One leg. Made by `phones`, `originate` or `loopback`; ended by `hangup` alone."""

    def __init__(
        self, switch: Switch, uuid: str, name: str, direction: str, profile: CallerProfile, endpoint: Endpoint
    ) -> None:
        self.switch = switch
        self.uuid = uuid
        self.name = name
        self.direction = direction
        self.profile = profile
        self.endpoint = endpoint
        self.session_id = switch.next_session_id()
        self.state = State.NEW
        self.running_state = State.NEW
        self.call_state = "DOWN"
        self.codec: tuple[str, str, str] | None = None
        self.ring_ready = self.early_media = self.answered = False
        self.hangup_cause: str | None = None
        self.other: tuple[str, CallerProfile] | None = None
        """``originator`` or ``originatee``, and the other leg's profile as it was when they met."""
        self.partner: Channel | None = None
        """The leg that this one is bridged with."""
        self.hit_dialplan = direction == "inbound"
        self.bare = False
        """Nothing is known of the caller yet."""
        # What is running
        self.actions: deque[tuple[str, str]] = deque()
        self.sleeper = Sleeper(switch.tick)
        self.watcher: Sleeper | None = None
        """Whoever waits for this leg: the bridge or the originate that dialled it."""
        self.private: deque[Command] = deque()
        self.queued_events: deque[Event] = deque()
        self.digits: deque[Dtmf] = deque()
        self.digits_dialed: list[str] = []
        self.applications: list[Executed] = []
        self.running_app = ""
        self.running_arg = ""
        self.machine: DigitMachine | None = None
        self.recordings: dict[str, Recording] = {}
        self.listener: Listener | None = None
        self.pins = 0
        """Outbound sockets that hold on to the channel; it is not destroyed before they go."""
        self.heard: list[Callable[[], Tones]] = []
        """What plays to this leg beside its partner, innermost last."""
        self.hold_record: list[list[int]] = []
        # Flags of the original, by their meaning
        self.controlled = False
        self.parked = False
        self.breaking = False
        self.broadcast = False
        self.stop_broadcast = False
        self.event_lock = 0
        self.transferring = False
        self.divert_events = False
        self.holding = False
        self.originating = False
        self.bridge_originator = False
        self.no_cdr = False
        self.detects_dtmf = False
        """``start_dtmf``: an in-band detector listens."""
        self.pending_bridge: Channel | None = None
        self._stack = 0
        self._variables: dict[str, tuple[str, str]] = {}
        self._lines: dict[str, str] = {}
        """The variables' lines in events, as far as they were needed; in no order."""
        self._variables_text: str | None = None
        self._hooked = False
        """Some ``execute_on_…`` or ``api_on_…`` variable is set."""
        self._running = False
        self._finished = False
        self.reported = False
        """It has ended, and its CDR is written."""
        self._tasks: list[Handle] = []

    # -- variables ------------------------------------------------------------------------------------

    def get(self, name: str) -> str | None:
        """A channel variable, in any case."""
        found = self._variables.get(name.lower())
        return found[1] if found else None

    def lookup(self, name: str) -> str | None:
        """A variable as ``${name}`` finds it: of the channel, of its profile, or of the switch."""
        value = self.get(name)
        if value is None:
            value = self._profile_field(name)
        return value if value is not None else self.switch.globals.get(name)

    def _profile_field(self, name: str) -> str | None:
        if name == "uuid":
            return self.uuid
        if name in (
            "ani",
            "aniii",
            "caller_id_name",
            "caller_id_number",
            "callee_id_name",
            "callee_id_number",
            "context",
            "destination_number",
            "dialplan",
            "network_addr",
            "rdnis",
            "source",
            "username",
            "chan_name",
        ):
            return str(getattr(self.profile, name)) or None
        if name == "state":
            return f"CS_{self.state.name}"
        return None

    def set(self, name: str, value: str | None) -> None:
        """Set a variable, to the end of the list as the switch does; None removes it."""
        key = name.lower()
        existed = self._variables.pop(key, None)
        if value:
            pair = (name, value)
            self._variables[key] = pair
            if key.startswith(("execute_on", "api_on")):
                self._hooked = True
            if pair != existed:
                self._lines.pop(key, None)
        elif existed is None:
            return
        else:
            self._lines.pop(key, None)
        self._variables_text = None

    def push(self, name: str, value: str) -> None:
        """Add to a variable that is a list."""
        old = self.get(name)
        if old is None:
            self.set(name, value)
            return
        # A list keeps its place.
        value = (old if old.startswith("ARRAY::") else f"ARRAY::{old}") + f"|:{value}"
        self._variables[name.lower()] = (name, value)
        self._lines.pop(name.lower(), None)
        self._variables_text = None

    def variables(self) -> list[tuple[str, str]]:
        """All variables in order."""
        return list(self._variables.values())

    def true(self, name: str) -> bool:
        """Whether a variable says yes."""
        return strings.true(self.get(name))

    def expand(self, value: str) -> str:
        """``${…}`` in an argument."""
        return strings.expand(value, self.lookup, self.switch.api_text)

    # -- events ---------------------------------------------------------------------------------------

    def _basic(self) -> Headers:
        if self.down:
            answer_state = "hangup"
        elif self.answered:
            answer_state = "answered"
        else:
            answer_state = "early" if self.early_media else "ringing"
        headers = [
            ("Channel-State", f"CS_{self.running_state.name}"),
            ("Channel-Call-State", self.call_state),
            ("Channel-State-Number", str(int(self.state))),
            ("Channel-Name", self.name),
            ("Unique-ID", self.uuid),
            ("Call-Direction", self.direction),
            ("Presence-Call-Direction", self.direction),
            ("Channel-HIT-Dialplan", "true" if self.hit_dialplan else "false"),
        ]
        presence = self.get("presence_id")
        if presence:
            headers.append(("Channel-Presence-ID", presence))
        headers.append(("Channel-Call-UUID", self.get("call_uuid") or self.uuid))
        headers.append(("Answer-State", answer_state))
        if self.hangup_cause:
            headers.append(("Hangup-Cause", self.hangup_cause))
        if self.codec:
            for way in ("Read", "Write"):
                headers += [
                    (f"Channel-{way}-Codec-Name", self.codec[0]),
                    (f"Channel-{way}-Codec-Rate", self.codec[1]),
                    (f"Channel-{way}-Codec-Bit-Rate", self.codec[2]),
                ]
        return headers

    def headers(self, variables: bool) -> Headers:
        """The channel's part of an event."""
        headers = self._basic() + ([] if self.bare else self.profile.headers("Caller"))
        if self.other:
            headers.append(("Other-Type", self.other[0]))
            headers += self.other[1].headers("Other-Leg")
        if variables:
            headers += [(f"variable_{name}", value) for name, value in self._variables.values()]
        return headers

    def rendered(self, variables: bool) -> str:
        """`headers` as text, from what is kept."""
        parts = [f"{name}: {url_encode(value)}\n" for name, value in self._basic()]
        if not self.bare:
            parts.append(self.profile.rendered("Caller"))
        if self.other:
            parts.append(f"Other-Type: {self.other[0]}\n")
            parts.append(self.other[1].rendered("Other-Leg"))
        if variables:
            if self._variables_text is None:
                lines = self._lines
                for key, (name, value) in self._variables.items():
                    if key not in lines:
                        lines[key] = f"variable_{name}: {url_encode(value)}\n"
                self._variables_text = "".join([lines[key] for key in self._variables])
            parts.append(self._variables_text)
        return "".join(parts)

    def fire(self, name: str, before: Iterable[tuple[str, str]] = (), after: Iterable[tuple[str, str]] = ()) -> None:
        """Fire an event of this channel."""
        bus = self.switch.bus
        if bus.wanted(name):
            bus.fire(Event(name, self, before, after))
        else:
            bus.sequence += 1

    # -- states ---------------------------------------------------------------------------------------

    @property
    def down(self) -> bool:
        """Hung up, though perhaps not yet gone."""
        return self.state >= State.HANGUP

    @property
    def ready(self) -> bool:
        """Up, and no transfer is about to take it elsewhere."""
        return not self.down and not self.transferring

    @property
    def media_ready(self) -> bool:
        """Audio flows."""
        return (self.answered or self.early_media) and not self.down

    def enter(self, state: State) -> None:
        """Run in a state."""
        self.state = state
        self.run_state(state)

    def run_state(self, state: State) -> None:
        """Note the state as the running one, with its event."""
        self.running_state = state
        if self.direction == "inbound" and state < State.HANGUP:
            if state == State.ROUTING:
                self.set_call_state("RINGING")
            elif self.answered:
                self.set_call_state("ACTIVE")
            elif self.early_media:
                self.set_call_state("EARLY")
        self.fire("CHANNEL_STATE")

    def set_call_state(self, call_state: str) -> None:
        """RINGING, ACTIVE, …; HANGUP is for good."""
        if self.call_state in (call_state, "HANGUP") and call_state != "DOWN":
            return
        original, self.call_state = self.call_state, call_state
        before = (
            ("Original-Channel-Call-State", original),
            ("Channel-Call-State-Number", str(CALL_STATES.index(call_state))),
        )
        self.fire("CHANNEL_CALLSTATE", before)

    def register(self) -> None:
        """The switch knows the channel from now on."""
        now = microseconds()
        self.profile.uuid, self.profile.chan_name = self.uuid, self.name
        self.profile.times.profile_created = self.profile.times.created = now
        if not self.profile.profile_index:
            self.profile.profile_index = "1"
        self.profile.touch()
        self.switch.channels[self.uuid] = self

    def create(self) -> None:
        """CS_INIT, with the events that say that the channel is there."""
        if self.uuid not in self.switch.channels:
            self.register()
        self.enter(State.INIT)
        self.state = State.ROUTING
        self.fire("CHANNEL_CREATE")
        if self.direction == "outbound":
            self.fire("CHANNEL_ORIGINATE")

    def mark_ring_ready(self) -> None:
        """The far end rings."""
        if self.ring_ready or self.answered or self.down:
            return
        self.ring_ready = True
        now = microseconds()
        if not self.profile.times.progress:
            self.profile.stamp("progress", now)
            self._stamp_originator("progress", now)
        self.fire("CHANNEL_PROGRESS")
        self.execute_on("execute_on_ring")
        self.set_call_state("RINGING")
        self.wake()

    def mark_pre_answered(self) -> None:
        """Early media flows."""
        if self.early_media or self.answered or self.down:
            return
        self.early_media = True
        now = microseconds()
        if not self.profile.times.progress_media:
            self.profile.stamp("progress_media", now)
            self._stamp_originator("progress_media", now)
        self.fire("CHANNEL_PROGRESS_MEDIA")
        self.execute_on("execute_on_pre_answer")
        self.execute_on("execute_on_media")
        self.set_call_state("EARLY")
        self.wake()

    def mark_answered(self) -> None:
        """The call is up."""
        if self.answered or self.down:
            return
        self.profile.stamp("answered", microseconds())
        self.answered = True
        self.fire("CHANNEL_ANSWER")
        self.set("endpoint_disposition", "ANSWER")
        self.execute_on("execute_on_answer")
        if not self.early_media:
            self.execute_on("execute_on_media")
        self.api_on("api_on_answer")
        self.set_call_state("ACTIVE")
        self.wake()

    def _stamp_originator(self, what: str, when: int) -> None:
        """A callee's progress is its caller's too."""
        if self.other and self.other[0] == "originator":
            self.other[1].stamp(what, when)
            caller = self.switch.channels.get(self.other[1].uuid)
            if caller is not None and not getattr(caller.profile.times, what):
                caller.profile.stamp(what, when)

    def execute_on(self, variable: str) -> None:
        """Run what ``execute_on_…`` variables ask for: all that begin with the name."""
        if not self._hooked:
            return
        for name, value in self.variables():
            if name.lower().startswith(variable):
                self.run_inline(value)

    def run_inline(self, value: str) -> None:
        """``app data`` or ``app:data`` now if it cannot block, ``app::data`` from the channel's own greenlet."""
        found = re.search(r" |::?", value)
        separator = found[0] if found else " "
        app, _, data = value.partition(separator)
        if separator != "::" and self.switch.is_quick(app):
            self.execute(app, self.expand(data) if data else "")
        else:
            self.queue_command(execute_command(app, data, lock=True))

    def api_on(self, variable: str) -> None:
        """Run what ``api_on_…`` variables ask for."""
        if not self._hooked:
            return
        for name, value in self.variables():
            if name.lower().startswith(variable):
                command, _, argument = self.expand(value).partition(" ")
                gevent.spawn(self.switch.api_text, command, argument)

    # -- answering a caller -----------------------------------------------------------------------------

    def answer(self) -> None:
        """The ``answer`` of an inbound leg, or of one that was originated and is up already."""
        if self.answered or self.down:
            return
        if self.direction == "inbound":
            self.endpoint.answer()
        self.mark_answered()

    def pre_answer(self) -> None:
        """Early media for an inbound leg."""
        if self.media_ready or self.down:
            return
        if self.direction == "inbound":
            self.endpoint.progress()
        self.mark_pre_answered()

    def ring(self) -> None:
        """Ringing for an inbound leg."""
        if self.ring_ready or self.media_ready or self.down:
            return
        if self.direction == "inbound":
            self.endpoint.ring()
        self.mark_ring_ready()

    # -- the end --------------------------------------------------------------------------------------

    def hangup(self, cause: str = "NORMAL_CLEARING") -> None:
        """End the leg; the first cause counts. Safe from anywhere, never blocks."""
        if self.down:
            return
        if self.holding:
            self.mark_hold(False)
        self.state = State.HANGUP
        self.hangup_cause = cause
        self.profile.touch()
        bonded = self.bonded()
        if bonded is not None:
            bonded.set("last_bridge_hangup_cause", cause)
            specific = self.get("proto_specific_hangup_cause")
            if specific:
                bonded.set("last_bridge_proto_specific_hangup_cause", specific)
        if self.bridge_originator:
            self.set("last_bridge_role", "originator")
        elif self.partner is not None:
            self.set("last_bridge_role", "originatee")
        self.fire("CHANNEL_HANGUP")
        self.wake()
        if not self._running:
            self.launch()
        if self.listener is not None:
            self.listener.channel_down()

    def hangup_now(self, cause: str, disposition: str) -> None:
        """A hang-up by the far end; what it did is noted when the event is out."""
        self.hangup(cause)
        self.set("sip_hangup_disposition", disposition)

    def bonded(self) -> Channel | None:
        """The leg that this one belongs to: its caller while it rings, its partner in a bridge."""
        uuid = self.get("signal_bond") or self.get("originate_signal_bond")
        return self.switch.locate(uuid) if uuid else None

    def _finish(self) -> None:
        """CS_HANGUP, CS_REPORTING, CS_DESTROY."""
        if self._finished:
            return
        self._finished = True
        for task in self._tasks:
            task.cancel()
        self.switch.scheduler.forget(self.uuid)
        self.profile.stamp("hungup", microseconds())
        self.run_state(State.HANGUP)
        for recording in list(self.recordings.values()):
            recording.stop()
        cause = self.hangup_cause or "NORMAL_CLEARING"
        self.set("bridge_to", None)
        self.set("hangup_cause", cause)
        self.set("hangup_cause_q850", str(causes.q850(cause)))
        self._set_timestamps()
        self.set_call_state("HANGUP")
        self.endpoint.hangup(cause)
        hook = self.get("api_hangup_hook")
        if hook:
            command, _, argument = hook.replace("::", " ", 1).partition(" ")
            gevent.spawn(self.switch.api_text, command, self.expand(argument))
        self.state = State.REPORTING
        self.run_state(State.REPORTING)
        if not self.no_cdr:
            self.switch.write_cdr(self)
        self.fire("CHANNEL_HANGUP_COMPLETE", [("Hangup-Cause", cause)])
        self.reported = True
        self.release()

    def release(self) -> None:
        """CS_DESTROY, as soon as no socket lingers on the channel: until then it is still shown."""
        if not self.reported or self.pins or self.state == State.DESTROY:
            return
        self.state = State.DESTROY
        self.fire("CHANNEL_DESTROY")
        self.run_state(State.DESTROY)
        self.switch.channels.pop(self.uuid, None)
        self.switch.ended(self)

    def _set_timestamps(self) -> None:
        times = self.profile.times
        self.set("digits_dialed", "".join(self.digits_dialed) or "none")

        def stamp(when: int) -> str:
            return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when / 1_000_000))

        self.set("start_stamp", stamp(times.created))
        self.set("profile_start_stamp", stamp(times.profile_created))
        for name, when in (
            ("answer", times.answered),
            ("bridge", times.bridged),
            ("hold", times.last_hold),
            ("resurrect", times.resurrected),
            ("progress", times.progress),
            ("progress_media", times.progress_media),
        ):
            if when:
                self.set(f"{name}_stamp", stamp(when))
        if self.hold_record:
            self.set("hold_events", "{" + ",".join(f"{{{on},{off}}}" for on, off in self.hold_record) + "}")
        self.set("end_stamp", stamp(times.hungup))
        for name, when in (
            ("start", times.created),
            ("profile_start", times.profile_created),
            ("answer", times.answered),
            ("bridge", times.bridged),
            ("last_hold", times.last_hold),
        ):
            self.set(f"{name}_epoch", str(when // 1_000_000))
            self.set(f"{name}_uepoch", str(when))
        self.set("hold_accum_seconds", str(times.hold_accum // 1_000_000))
        self.set("hold_accum_usec", str(times.hold_accum))
        self.set("hold_accum_ms", str(times.hold_accum // 1000))
        for name, when in (
            ("resurrect", times.resurrected),
            ("progress", times.progress),
            ("progress_media", times.progress_media),
            ("end", times.hungup),
        ):
            self.set(f"{name}_epoch", str(when // 1_000_000))
            self.set(f"{name}_uepoch", str(when))
        if self.applications:
            last = self.applications[-1]
            self.set("last_app", last.app)
            self.set("last_arg", last.data)
        name, number = self.profile.caller_id_name, self.profile.caller_id_number
        self.set("caller_id", f'"{name}" <{number}>' if name else number)
        created, hungup = times.created, times.hungup

        def since(when: int, unit: int) -> int:
            return when // unit - created // unit if when else 0

        for unit, mark in ((1_000_000, "sec"), (1_000, "msec"), (1, "usec")):
            letter = {"sec": "", "msec": "m", "usec": "u"}[mark]
            answered = times.answered
            bill = hungup // unit - answered // unit if answered else 0
            waited = since(times.bridged, unit) if times.bridged > created else 0
            self.set(f"{letter}duration", str(hungup // unit - created // unit))
            self.set(f"bill{mark}", str(bill))
            self.set(f"progress{mark}", str(since(times.progress, unit)))
            self.set(f"answer{mark}", str(since(answered, unit)))
            self.set(f"wait{mark}", str(waited))
            self.set(f"progress_media{mark}", str(since(times.progress_media, unit)))
            self.set(f"flow_bill{mark}", str(since(hungup, unit) if answered else 0))

    # -- holding --------------------------------------------------------------------------------------

    def mark_hold(self, on: bool) -> None:
        """The far end put us on hold, or took us off."""
        if self.holding == on or (self.down and on):
            return
        self.holding = on
        now = microseconds()
        if on:
            self.profile.stamp("last_hold", now)
            self.hold_record.append([now, 0])
            self.set_call_state("HELD")
        else:
            times = self.profile.times
            if times.last_hold:
                self.profile.stamp("hold_accum", times.hold_accum + now - times.last_hold)
            if self.hold_record:
                self.hold_record[-1][1] = now
            self.set_call_state("UNHELD")
        self.fire("CHANNEL_HOLD" if on else "CHANNEL_UNHOLD")
        self._hold_music(on)
        if not on:
            self.set_call_state("ACTIVE")

    def _hold_music(self, on: bool) -> None:
        """What the other party hears meanwhile: the switch plays to it, as an application of its own."""
        partner = self.partner
        if partner is None or partner.down:
            return
        music = self.lookup("hold_music")
        if on and music and music != "silence":
            command = execute_command("playback", music, lock=True)
            command.headers += [("lead-frames", "5"), ("loops", "-1")]
            partner.queue_command(command)
        elif not on:
            partner.stop_playing()

    def stop_playing(self, *, flush: bool = False) -> None:
        """``uuid_break``: end what plays; with ``flush`` drop the commands that wait, too."""
        if flush:
            self.private.clear()
        if self.broadcast:
            self.stop_broadcast = True
        self.breaking = True
        self.wake()

    # -- the channel's greenlet -------------------------------------------------------------------------

    def launch(self) -> None:
        """Let the channel's greenlet run, if it does not."""
        if not self._running:
            self._running = True
            gevent.spawn(self._thread)

    def _thread(self) -> None:
        try:
            while not self.down:
                state = self.state
                if state != self.running_state:
                    self.run_state(state)
                if state == State.ROUTING:
                    self._route()
                elif state == State.EXECUTE:
                    self._run_actions()
                elif state == State.PARK:
                    self.park()
                    if self.state == State.PARK and not self.down:
                        self.hangup()
                elif state == State.SOFT_EXECUTE:
                    self.switch.run_pending_bridge(self)
                else:
                    self.transferring = False
                    self.parse_events()
                    if self.state == state and (not self.private or self.event_lock):
                        # Nothing to do until a command or a hang-up comes.
                        self._running = False
                        return
        except BaseException as error:
            self.switch.report(f"channel {self.uuid}", error)
            if not self.down:
                self.hangup("DESTINATION_OUT_OF_ORDER")
            if not isinstance(error, Exception):
                raise
        self._finish()
        self._running = False

    def _route(self) -> None:
        self.transferring = False
        self.hit_dialplan = True
        profile = self.profile
        actions = self.switch.dialplan.lookup(self, profile.context, profile.destination_number)
        if actions is None:
            self.hangup("NO_ROUTE_DESTINATION")
            return
        self.actions = deque(actions)
        self.state = State.EXECUTE

    def _run_actions(self) -> None:
        self.transferring = False
        if self.direction == "outbound":
            self._flip_caller_id()
        self.set("call_uuid", self.uuid)
        while self.actions and self.state == State.EXECUTE:
            app, data = self.actions.popleft()
            self.execute(app, data)
            self.parse_events()
            if self.transferring:
                break
        if self.state == State.EXECUTE and not self.actions and not self.transferring:
            self.hangup()

    def _flip_caller_id(self) -> None:
        """A leg that we dialled is a caller like any once it runs a dialplan: the far party's number is its own."""
        if self.get("channel_cid_flipped"):
            return
        profile = self.profile
        self.set("pre_transfer_caller_id_name", profile.caller_id_name)
        self.set("pre_transfer_caller_id_number", profile.caller_id_number)
        profile.caller_id_name, profile.callee_id_name = profile.callee_id_name, profile.caller_id_name
        profile.caller_id_number, profile.callee_id_number = profile.callee_id_number, profile.caller_id_number
        profile.touch()
        self.set("channel_cid_flipped", "yes")

    def transfer(self, extension: str, dialplan: str = "", context: str = "") -> None:
        """Send the channel to an extension, out of whatever it does. Safe from anywhere."""
        if self.down:
            return
        history = f"{int(time.time())}:{self.switch.make_uuid()}:bl_xfer:{extension}"
        profile = self.profile
        context = context or profile.context or "default"
        dialplan = dialplan or profile.dialplan or "XML"
        history += f"/{context}/{dialplan}"
        self.set("max_forwards", str(strings.number(self.get("max_forwards"), 71) - 1))
        self.set("transfer_history", history)
        self.set("transfer_source", history)
        if extension != profile.destination_number:
            profile.rdnis = profile.destination_number
        profile.destination_number, profile.context, profile.dialplan = extension, context, dialplan
        profile.transfer_source = history
        profile.profile_index = str(strings.number(profile.profile_index) + 1)
        profile.times.profile_created = microseconds()
        profile.touch()
        self.hit_dialplan = True
        self.move(State.ROUTING)

    def move(self, state: State, *, keep: bool = False) -> None:
        """Leave what runs and go on in another state; with ``keep`` the dialplan's rest stays for later."""
        self.state = state
        self.transferring = True
        if not keep:
            self.actions.clear()
        self.parked = False
        self.wake()
        self.launch()

    def wake(self) -> None:
        """Something changed: let this channel's loop, and whoever waits for the leg, look."""
        self.sleeper.wake()
        if self.watcher is not None:
            self.watcher.wake()

    # -- commands from event sockets ----------------------------------------------------------------------

    def queue_command(self, command: Command) -> None:
        """Have a command run by the channel, at its next frame."""
        if self._finished:
            return
        self.private.append(command)
        self.wake()
        if not self._running:
            self.launch()

    def parse_events(self) -> None:
        """Run the queued commands, unless one that locked the channel still runs."""
        if self._stack > 100:
            return
        self._stack += 1
        try:
            while self.private and not self.event_lock:
                if not self.parse_event(self.private.popleft()):
                    break
        finally:
            self._stack -= 1

    def parse_event(self, command: Command) -> bool:
        """Run one command; false if it left a break behind, which ends the round."""
        call_command = (command.get("call-command") or "").lower()
        if not call_command:
            return True
        lock = strings.true(command.get("event-lock"))
        # A channel parked without audio takes its commands by another way, which fires no event.
        silent = self.parked and not self.media_ready
        self.event_lock += lock
        try:
            if call_command == "execute":
                self._execute_command(command)
            elif call_command == "hangup":
                self.hangup(causes.parse(command.get("hangup-cause") or "NORMAL_CLEARING"))
        finally:
            self.event_lock -= lock
        if not silent and self.switch.bus.wanted("PRIVATE_COMMAND"):
            event = Event("PRIVATE_COMMAND", self)
            lines = "".join(f"\n{name}: {value}" for name, value in command.headers)
            event.head = [("Command", command.line + lines), *command.headers]
            self.switch.bus.fire(event)
        return not self.breaking

    def _execute_command(self, command: Command) -> None:
        app = command.get("execute-app-name")
        if not app:
            return
        data = command.get("execute-app-arg") or ""
        if not data and (command.get("content-type") or "").lower() == "text/plain":
            data = command.body
        loops = strings.number(command.get("loops"), 1) if command.get("loops") else 1
        uuid = command.get("event-uuid")
        self.stop_broadcast = False
        outermost = not self.broadcast
        self.broadcast = True
        turn = 0
        while turn < loops or loops < 0:
            turn += 1
            if uuid:
                self.set("app_uuid", uuid)
            self.set("current_loop", str(turn))
            self.set("total_loops", str(loops))
            began = time.monotonic()
            if not self.execute(app, data):
                break
            # Less than half a second: a loop would spin.
            if not self.ready or self.stop_broadcast or time.monotonic() - began < 0.5:
                break
        self.set("current_loop", None)
        self.set("total_loops", None)
        if outermost:
            self.broadcast = False
        if self.stop_broadcast:
            self.broadcast = False
            self.breaking = True

    # -- applications -------------------------------------------------------------------------------------

    def execute(self, app: str, data: str = "") -> bool:
        """Run one application to its end; false if the switch would not run it."""
        interface = self.switch.applications.get(app.lower())
        if self.down and not (interface and interface.zombie):
            self.set("app_uuid", None)
            return interface is not None
        if not data and "::" in app:
            name, _, data = app.partition("::")
            self.queue_command(execute_command(name, data, lock=True))
            return True
        if interface is None:
            self.switch.log.error("Invalid Application %s", app)
            self.hangup("DESTINATION_OUT_OF_ORDER")
            return False
        if interface.media and not self.media_ready and not self.down:
            if self.direction == "inbound":
                self.pre_answer()
            else:
                self.wait_for(lambda: self.media_ready, 2.0)
                if not self.media_ready:
                    return False
        app_uuid = self.get("app_uuid") or self.switch.make_uuid()
        self.set("app_uuid", None)
        expanded = self.expand(data)
        if len(self.applications) < 1000:
            self.applications.append(Executed(interface.name, expanded, microseconds()))
        self.set("current_application", interface.name)
        self.set("current_application_data", expanded)
        self.set("current_application_response", None)
        marks = [("Application", interface.name)]
        if expanded:
            marks.append(("Application-Data", expanded))
        uuid_mark = ("Application-UUID", app_uuid)
        self.fire("CHANNEL_EXECUTE", (), [*marks, uuid_mark])
        self.breaking = False
        self.set("current_application", interface.name)
        outer = self.running_app, self.running_arg
        self.running_app, self.running_arg = interface.name, expanded
        try:
            interface.run(self, expanded)
        except Exception as error:
            self.switch.report(f"{interface.name}({expanded})", error)
        finally:
            self.running_app, self.running_arg = outer
        response = self.get("current_application_response") or "_none_"
        self.fire("CHANNEL_EXECUTE_COMPLETE", (), [*marks, ("Application-Response", response), uuid_mark])
        return True

    def idle(self, deadline: float | None) -> float:
        """One round of an application's loop: run queued commands, or sleep till something happens.

        Seconds that the commands took: what plays meanwhile does not go on.
        """
        if self.private and not self.event_lock:
            began = time.monotonic()
            self.parse_events()
            return time.monotonic() - began
        seconds = None if deadline is None else deadline - time.monotonic()
        if seconds is None or seconds > 0:
            self.sleeper.sleep(seconds)
        return 0.0

    def wait_for(self, condition: Callable[[], object], seconds: float | None = None) -> bool:
        """Idle until a condition holds or the channel is not ready any more."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not condition():
            if not self.ready or (deadline is not None and time.monotonic() >= deadline):
                return bool(condition())
            self.idle(deadline)
        return True

    def park(self) -> None:
        """Do nothing but what commands say, till the socket lets go, a transfer, or the end."""
        if self.controlled or self.down:
            return
        self.controlled = self.parked = True
        seconds = self.get("park_timeout")
        deadline = None
        timeout_cause = "NORMAL_CLEARING"
        if seconds:
            time_text, _, cause = seconds.partition(":")
            deadline = time.monotonic() + strings.number(time_text)
            timeout_cause = causes.parse(cause) if cause else timeout_cause
            self.set("park_timeout", None)
        self.fire("CHANNEL_PARK")
        while self.ready and self.controlled and self.parked:
            if deadline is not None and time.monotonic() >= deadline:
                self.hangup(timeout_cause)
                break
            if self.digits:
                self.dequeue_digit()
                continue
            self.drain_events(fire=True)
            self.idle(deadline)
        self.controlled = self.parked = False
        self.fire("CHANNEL_UNPARK")

    def drain_events(self, *, fire: bool = False) -> None:
        """Events sent to this session that its socket did not divert: a parked channel fires them to all."""
        while self.queued_events and not self.divert_events:
            event = self.queued_events.popleft()
            if fire:
                event.channel = self
                self.switch.bus.publish(event)

    # -- digits -------------------------------------------------------------------------------------------

    def queue_digit(self, digit: str, duration: int = 2000, source: str = "RTP") -> None:
        """A digit from the far end: to the bound actions if there are any, else to the application."""
        if self.down:
            return
        if self.machine is not None:
            self.machine.feed(digit)
            return
        self.accept_digit(digit, duration, source)

    def accept_digit(self, digit: str, duration: int = 2000, source: str = "RTP") -> None:
        """A digit that no bound action took."""
        sensitive = self.true("sensitive_dtmf")
        if not sensitive:
            self.switch.log.info("RECV DTMF %s:%d", digit, duration)
        self.digits.append(Dtmf(digit, duration, source, sensitive))
        self.wake()

    def dequeue_digit(self) -> Dtmf | None:
        """The next digit for whoever reads now: this, not the key's press, is what fires the DTMF event."""
        if not self.digits:
            return None
        dtmf = self.digits.popleft()
        if dtmf.sensitive:
            return dtmf
        self.digits_dialed.append(dtmf.digit)
        after = (
            ("DTMF-Digit", dtmf.digit),
            ("DTMF-Duration", str(dtmf.duration)),
            ("DTMF-Source", dtmf.source),
        )
        if self.divert_events:
            event = self.switch.bus.stamp(Event("DTMF", self, (), after))
            self.queue_event(event)
        else:
            self.fire("DTMF", (), after)
        return dtmf

    def queue_event(self, event: Event) -> None:
        """An event for this session alone; with ``divert_events`` its socket gets it."""
        self.queued_events.append(event)
        if len(self.queued_events) > 10_000:
            self.queued_events.popleft()
        if self.divert_events:
            if self.listener is not None:
                self.listener.take_diverted()
        else:
            self.wake()

    # -- what the far end hears ------------------------------------------------------------------------------

    def tones(self) -> Tones:
        """The frequencies (Hz) that reach this leg's far end now."""
        if self.down or not self.media_ready:
            return set()
        if self.heard:
            return self.heard[-1]()
        if self.partner is not None and not self.partner.down and not self.partner.holding:
            return self.switch.tones_from(self.partner)
        return set()

    def schedule(self, when: str, name: str, function: Callable[..., object], *args: object) -> int:
        """Have something done to the channel later; ``sched_del`` of its UUID takes it back."""
        number = self.switch.scheduler.add(when, self.uuid, name, function, *args)
        self.set("last_sched_id", str(number))
        return number

    def at(self, seconds: float, function: Callable[..., object], *args: Any) -> Handle:
        """Call later, unless the leg has ended."""
        handle = later(seconds, function, *args)
        self._tasks.append(handle)
        return handle


def execute_command(app: str, data: str, *, lock: bool = False) -> Command:
    """The command that runs an application, as ``uuid_broadcast`` queues it."""
    headers = [("call-command", "execute"), ("execute-app-name", app)]
    if data:
        headers.append(("execute-app-arg", data))
    if lock:
        headers.append(("event-lock", "true"))
    return Command("sendmsg", headers)
