"""The state of a leg: its identity, its progress, and the events that report them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from esl_apps.sandbox.leg.bindings import DigitMachine
from esl_apps.sandbox.leg.media import Recording
from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.leg.state import CALL_STATES, Executed, State, microseconds
from esl_apps.sandbox.leg.variables import Variables
from esl_apps.sandbox.protocols import Board, Endpoint, Leg
from esl_apps.sandbox.wire import strings
from esl_apps.sandbox.wire.events import Event, Headers
from esl_apps.sandbox.wire.wire import execute_command, url_encode

#: The fields of the caller's profile that ``${name}`` finds.
_PROFILE_FIELDS = frozenset(
    {
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
    }
)


class LegState(Variables):
    """A leg's variables, profile, flags and states. `Execution` runs things on it."""

    def __init__(
        self, switch: Board, uuid: str, name: str, direction: str, profile: CallerProfile, endpoint: Endpoint
    ) -> None:
        super().__init__()
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
        """``originator`` or ``originatee``, and the other leg's profile at the time they were joined."""
        self.partner: Leg | None = None
        """The leg that this one is bridged with."""
        self.hit_dialplan = direction == "inbound"
        self.bare = False
        """The caller isn't known yet."""
        self.machine: DigitMachine | None = None
        self.recordings: dict[str, Recording] = {}
        self.applications: list[Executed] = []
        self.hold_record: list[list[int]] = []
        # FreeSWITCH's channel flags
        self.transferring = False
        self.holding = False
        self.originating = False
        self.bridge_originator = False
        self.no_cdr = False
        self.muted = False
        """Its far end's sound is taken for silence."""
        self.detects_dtmf = False
        """``start_dtmf`` has started the in-band detector."""

    # -- for subclasses --------------------------------------------------------------------------------

    @abstractmethod
    def execute_on(self, variable: str) -> None:
        """Run what ``execute_on_…`` variables ask for."""

    @abstractmethod
    def api_on(self, variable: str) -> None:
        """Run what ``api_on_…`` variables ask for."""

    @abstractmethod
    def wake(self) -> None:
        """Wake this channel's loop and the greenlet that waits for the leg, because something changed."""

    # -- variables from elsewhere ----------------------------------------------------------------------

    def lookup(self, name: str) -> str | None:
        """Return a variable as ``${name}`` finds it: the channel's, its profile's, or the switch's."""
        value = self.get(name)
        if value is None:
            value = self._profile_field(name)
        return value if value is not None else self.switch.globals.get(name)

    def _profile_field(self, name: str) -> str | None:
        if name == "uuid":
            return self.uuid
        if name in _PROFILE_FIELDS:
            return str(getattr(self.profile, name)) or None
        if name == "state":
            return f"CS_{self.state.name}"
        return None

    def expand(self, value: str) -> str:
        """Expand ``${…}`` in an argument."""
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
        presence_data = self.get("presence_data")
        if presence_data:
            headers.append(("Channel-Presence-Data", presence_data))
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
        """Return the channel's part of an event."""
        headers = self._basic() + ([] if self.bare else self.profile.headers("Caller"))
        if self.other:
            headers.append(("Other-Type", self.other[0]))
            headers += self.other[1].headers("Other-Leg")
        if variables:
            headers += [(f"variable_{name}", value) for name, value in self._variables.values()]
        return headers

    def rendered(self, variables: bool) -> str:
        """Return `headers` as text, from cached parts."""
        parts = [f"{name}: {url_encode(value)}\n" for name, value in self._basic()]
        if not self.bare:
            parts.append(self.profile.rendered("Caller"))
        if self.other:
            parts.append(f"Other-Type: {self.other[0]}\n")
            parts.append(self.other[1].rendered("Other-Leg"))
        if variables:
            parts.append(self.variables_text())
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
        """It has hung up, though it may still exist."""
        return self.state >= State.HANGUP

    @property
    def ready(self) -> bool:
        """It is up, and not about to be transferred."""
        return not self.down and not self.transferring

    @property
    def media_ready(self) -> bool:
        """Audio flows."""
        return (self.answered or self.early_media) and not self.down

    def enter(self, state: State) -> None:
        """Enter a state and run in it."""
        self.state = state
        self.run_state(state)

    def run_state(self, state: State) -> None:
        """Make a state the running one, with its event."""
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
        """Set the call state (RINGING, ACTIVE, …). HANGUP can't be left."""
        if self.call_state in (call_state, "HANGUP") and call_state != "DOWN":
            return
        original, self.call_state = self.call_state, call_state
        before = (
            ("Original-Channel-Call-State", original),
            ("Channel-Call-State-Number", str(CALL_STATES.index(call_state))),
        )
        self.fire("CHANNEL_CALLSTATE", before)

    def mark_ring_ready(self) -> None:
        """Note that the far end rings."""
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
        """Note that early media flows."""
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
        """Note that the call was answered."""
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

    def _stamp_originator(self, time_name: str, when: int) -> None:
        """Set a time of a callee on its caller too."""
        if self.other and self.other[0] == "originator":
            self.other[1].stamp(time_name, when)
            caller = self.switch.channels.get(self.other[1].uuid)
            if caller is not None and not getattr(caller.profile.times, time_name):
                caller.profile.stamp(time_name, when)

    # -- answering a caller -----------------------------------------------------------------------------

    def answer(self) -> None:
        """Answer an inbound leg, or one that was originated and has early media."""
        if self.answered or self.down:
            return
        if self.direction == "inbound":
            self.endpoint.answer()
        self.mark_answered()

    def pre_answer(self) -> None:
        """Give an inbound leg early media."""
        if self.media_ready or self.down:
            return
        if self.direction == "inbound":
            self.endpoint.progress()
        self.mark_pre_answered()

    def ring(self) -> None:
        """Tell an inbound leg that the callee rings."""
        if self.ring_ready or self.media_ready or self.down:
            return
        if self.direction == "inbound":
            self.endpoint.ring()
        self.mark_ring_ready()

    # -- holding --------------------------------------------------------------------------------------

    def mark_hold(self, on: bool) -> None:
        """Note that the far end put the switch on hold, or took it off."""
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
        """Start or stop the music that the other party hears, which is an application of its own."""
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

    def drop_recording(self, recording: object) -> None:
        """Drop a recording that has stopped."""
        for name, running in list(self.recordings.items()):
            if running is recording:
                del self.recordings[name]
