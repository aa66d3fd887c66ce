"""A channel: one leg of a call and the greenlet that runs its dialplan, from its creation to its end.

FreeSWITCH gives every session a thread. Here a channel has a greenlet only while it has something to run
(dialplan, an application, a bridge that it originated); the called leg of a bridge has none.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import gevent

from esl_apps.sandbox.leg.execution import Execution
from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.leg.state import Executed, State, Tones, microseconds
from esl_apps.sandbox.protocols import Board, Door, Endpoint
from esl_apps.sandbox.report.statistics import set_statistics
from esl_apps.sandbox.report.times import set_times
from esl_apps.sandbox.run.dialplan import Dialplan, inline
from esl_apps.sandbox.run.sleeper import Handle, later
from esl_apps.sandbox.wire import causes, strings
from esl_apps.sandbox.wire.wire import execute_command


@dataclass(frozen=True, slots=True)
class Application:
    """One application: its function, and how the switch may run it."""

    name: str
    run: Callable[[Channel, str], None]
    media: bool = False
    """It needs audio, so an unanswered caller gets early media first."""
    zombie: bool = False
    """It also runs on a channel that has hung up."""
    quick: bool = False
    """It never waits."""


class Switchboard(Board, Protocol):
    """The switch, as seen by the code that dials and runs channels."""

    password: str
    endpoint_kinds: frozenset[str]
    dialplan: Dialplan
    applications: dict[str, Application]
    conferences: dict[str, list[Channel]]
    listeners: set[Door]

    @property
    def channels(self) -> dict[str, Channel]:
        """All legs by UUID."""

    def locate(self, uuid: str) -> Channel | None:
        """Find a leg that is up."""

    def api(self, command: str, argument: str) -> str:
        """Return what ``fs_cli -x`` would print."""

    def write_cdr(self, channel: Channel) -> None:
        """Write the records of a leg that has ended."""

    def ended(self, channel: Channel) -> None:
        """Drop what refers to a channel that has been destroyed."""

    def outgoing(
        self, kind: str, data: str, variables: dict[str, str], profile: CallerProfile, caller: Channel | None
    ) -> tuple[Channel | None, str]:
        """Create a leg without starting it; None and a cause if that fails."""

    def start_leg(self, leg: Channel) -> None:
        """Send the INVITE."""

    def contact_string(self, user: str) -> str:
        """Return what ``sofia_contact`` prints."""

    def user_variables(self, user: str) -> list[tuple[str, str]]:
        """Return the variables that the directory sets on a user's legs."""

    def run_pending_bridge(self, channel: Channel) -> None:
        """Run ``uuid_bridge`` in the first leg's greenlet."""

    def shape_changed(self, *channels: Channel) -> None:
        """Tell recordings that the audio between legs has changed."""


class Channel(Execution):
    """One leg. Phones, originates and loopbacks create it; only `hangup` ends it."""

    switch: Switchboard
    partner: Channel | None

    def __init__(
        self, switch: Switchboard, uuid: str, name: str, direction: str, profile: CallerProfile, endpoint: Endpoint
    ) -> None:
        super().__init__(switch, uuid, name, direction, profile, endpoint)
        self.actions: deque[tuple[str, str]] = deque()
        self.running_app = ""
        self.running_arg = ""
        self.pins = 0
        """How many outbound sockets keep the channel from being destroyed."""
        self.heard: list[Callable[[], Tones]] = []
        """The tones played to this leg in place of its partner's, innermost last."""
        self.pending_bridge: Channel | None = None
        self.confirms = False
        """Its partner's phone has transferred it, and waits to hear whether that worked (CF_CONFIRM_BLIND_TRANSFER)."""
        self.watched: frozenset[str] = frozenset()
        """The headers whose requests are reported (``sip_watch_headers``)."""
        self.reported = False
        """It has ended, and its CDR is written."""
        self._tasks: list[Handle] = []

    def register(self) -> None:
        """Add the channel to the switch's."""
        now = microseconds()
        self.profile.uuid, self.profile.chan_name = self.uuid, self.name
        self.profile.times.profile_created = self.profile.times.created = now
        if not self.profile.profile_index:
            self.profile.profile_index = "1"
        self.profile.touch()
        self.switch.channels[self.uuid] = self

    def create(self) -> None:
        """Enter CS_INIT, with the events of a new channel."""
        if self.uuid not in self.switch.channels:
            self.register()
        self.enter(State.INIT)
        self.watch_headers()
        self.state = State.ROUTING
        self.fire("CHANNEL_CREATE")
        if self.direction == "outbound":
            self.fire("CHANNEL_ORIGINATE")

    def watch_headers(self) -> None:
        """Read which headers are reported: once, as mod_sofia does in CS_INIT."""
        self.watched = frozenset((self.get("sip_watch_headers") or "").lower().split(","))

    # -- the end --------------------------------------------------------------------------------------

    def hangup(self, cause: str = "NORMAL_CLEARING") -> None:
        """End the leg. The first cause counts. Can be called from any greenlet, and never blocks."""
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
        for listener in self.listeners:
            listener.channel_down()

    def hangup_now(self, cause: str, disposition: str) -> None:
        """Hang up for the far end. The disposition is set after the event, as FreeSWITCH does."""
        self.hangup(cause)
        self.set("sip_hangup_disposition", disposition)

    def bonded(self) -> Channel | None:
        """Return the leg that this one belongs to: its caller while it rings, its partner in a bridge."""
        uuid = self.get("signal_bond") or self.get("originate_signal_bond")
        return self.switch.locate(uuid) if uuid else None

    def _finish(self) -> None:
        """Go through CS_HANGUP, CS_REPORTING and CS_DESTROY."""
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
        set_times(self, "".join(self.digits_dialed) or "none")
        self.set_call_state("HANGUP")
        self.endpoint.hangup(cause)
        set_statistics(self)
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
        """Enter CS_DESTROY, unless a socket lingers on the channel; until then it is still shown."""
        if not self.reported or self.pins or self.state == State.DESTROY:
            return
        self.state = State.DESTROY
        self.fire("CHANNEL_DESTROY")
        self.run_state(State.DESTROY)
        self.switch.channels.pop(self.uuid, None)
        self.switch.ended(self)

    # -- running an application -------------------------------------------------------------------------

    def execute(self, app: str, data: str = "") -> bool:
        """Run one application to its end; False if the switch would not run it."""
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

    # -- the channel's greenlet -------------------------------------------------------------------------

    def launch(self) -> None:
        """Start the channel's greenlet, unless it runs."""
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
                    self.transferring = False
                    self.park()
                    if self.state == State.PARK and not self.down:
                        self.hangup()
                elif state == State.SOFT_EXECUTE:
                    self.switch.run_pending_bridge(self)
                else:
                    self.transferring = False
                    self.parse_events()
                    if self.state == state and (not self.private or self.event_lock):
                        # Nothing to do until the next command or the hang-up.
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
        if profile.dialplan.lower() == "inline":
            self.actions = deque(inline(profile.destination_number))
            self.state = State.EXECUTE
            return
        actions = self.switch.dialplan.lookup(self, profile.context, profile.destination_number)
        if actions is None:
            if self.confirm_transfer(success=False):
                self.state = State.PARK
            else:
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
            if self.confirm_transfer(success=False):
                self.set("park_timeout", "10:blind_transfer")
                self.state = State.PARK
            else:
                self.hangup()

    def confirm_transfer(self, *, success: bool) -> bool:
        """Tell the phone that has transferred this leg whether that worked. If not, it is joined with the leg again.

        Return False if no phone waits for that.
        """
        confirms, self.confirms = self.confirms, False
        phone = self.switch.locate(self.get("blind_transfer_uuid") or "") if confirms else None
        if phone is None:
            return False
        phone.endpoint.referred(200 if success else 403)
        if not success:
            phone.transfer(f"intercept:{self.uuid}", "inline")
        return True

    def _flip_caller_id(self) -> None:
        """Swap caller and callee of a leg that the switch dialled, because in a dialplan it is a caller."""
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
        """Send the channel to an extension, whatever it is doing. Can be called from any greenlet."""
        if self.down:
            return
        self.execute_on("execute_on_blind_transfer")
        history = f"{int(time.time())}:{self.switch.make_uuid()}:bl_xfer:{extension}"
        profile = self.profile
        own = "" if profile.dialplan.lower() == "inline" else profile.dialplan
        dialplan = dialplan or self.get("force_transfer_dialplan") or own or "XML"
        context = context or self.get("force_transfer_context") or profile.context or "default"
        bonded = self.bonded()
        self.set("signal_bond", None)
        if bonded is not None and bonded.get("signal_bond") == self.uuid:
            bonded.set("signal_bond", None)
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
        # FreeSWITCH makes another profile, which counts the phone's hold from 0.
        profile.times.last_hold = profile.times.hold_accum = 0
        profile.touch()
        self.hit_dialplan = True
        self.move(State.ROUTING)

    def move(self, state: State, *, keep: bool = False) -> None:
        """Stop what runs and go on in another state. ``keep``: keep the rest of the dialplan for later."""
        self.state = state
        self.transferring = True
        if not keep:
            self.actions.clear()
        self.parked = False
        self.wake()
        self.launch()

    # -- what the far end hears ------------------------------------------------------------------------------

    def tones(self) -> Tones:
        """Return the frequencies (Hz) that reach this leg's far end now."""
        if self.down or not self.media_ready:
            return set()
        if self.heard:
            return self.heard[-1]()
        # An application that runs on one leg of a bridge holds up the sound of both.
        if self.partner is not None and not (self.partner.down or self.partner.holding or self.partner.heard):
            return self.switch.tones_from(self.partner)
        return set()

    def schedule(self, when: str, name: str, function: Callable[..., object], *args: object) -> int:
        """Schedule something for the channel, which ``sched_del`` of its UUID cancels; return the task's number."""
        number = self.switch.scheduler.add(when, self.uuid, name, function, *args)
        self.set("last_sched_id", str(number))
        return number

    def at(self, seconds: float, function: Callable[..., object], *args: Any) -> Handle:
        """Call later, unless the leg has ended."""
        handle = later(seconds, function, *args)
        self._tasks.append(handle)
        return handle
