"""Run applications on a leg, the commands that are queued for it, and its digits.

Commands run inside a running application, break it, or wait behind an ``event-lock``, as in the switch's own loop:
applications call `Execution.idle`, which runs queued commands first.
"""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable

import gevent

from esl_apps.sandbox.leg.leg_state import LegState
from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.leg.state import Dtmf
from esl_apps.sandbox.protocols import Board, Door, Endpoint
from esl_apps.sandbox.run.sleeper import Sleeper
from esl_apps.sandbox.wire import causes, strings
from esl_apps.sandbox.wire.events import Event
from esl_apps.sandbox.wire.wire import Command, execute_command


class Execution(LegState):
    """A leg's queue of commands, its running application and its digits."""

    def __init__(
        self, switch: Board, uuid: str, name: str, direction: str, profile: CallerProfile, endpoint: Endpoint
    ) -> None:
        super().__init__(switch, uuid, name, direction, profile, endpoint)
        self.sleeper = Sleeper(switch.tick)
        self.watcher: Sleeper | None = None
        """The bridge or originate that waits for this leg."""
        self.private: deque[Command] = deque()
        self.queued_events: deque[Event] = deque()
        self.digits: deque[Dtmf] = deque()
        self.digits_dialed: list[str] = []
        self.listeners: list[Door] = []
        """The outbound sockets of this leg, the one of the latest ``socket`` last."""
        # FreeSWITCH's channel flags
        self.controlled = False
        self.parked = False
        self.breaking = False
        self.broadcast = False
        self.stop_broadcast = False
        self.event_lock = 0
        self.divert_events = False
        self._stack = 0
        self._running = False
        self._finished = False

    # -- for subclasses --------------------------------------------------------------------------------

    @abstractmethod
    def launch(self) -> None:
        """Start the channel's greenlet, unless it runs."""

    @abstractmethod
    def hangup(self, cause: str = "NORMAL_CLEARING") -> None:
        """End the leg."""

    @abstractmethod
    def execute(self, app: str, data: str = "") -> bool:
        """Run one application to its end."""

    # -- hooks ------------------------------------------------------------------------------------------

    def execute_on(self, variable: str) -> None:
        """Run what the ``execute_on_…`` variables whose names start with ``variable`` ask for."""
        if not self._hooked:
            return
        for name, value in self.variables():
            if name.lower().startswith(variable):
                self.run_inline(value)

    def run_inline(self, value: str) -> None:
        """Run ``app data`` or ``app:data`` now if it can't block; ``app::data`` in the channel's own greenlet."""
        mark = re.search(r" |::?", value)
        separator = mark[0] if mark else " "
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

    def wake(self) -> None:
        """Wake this channel's loop and the greenlet that waits for the leg, because something changed."""
        self.sleeper.wake()
        if self.watcher is not None:
            self.watcher.wake()

    def stop_playing(self, *, flush: bool = False) -> None:
        """Stop what plays, as ``uuid_break`` does. ``flush``: also drop queued commands."""
        if flush:
            self.private.clear()
        if self.broadcast:
            self.stop_broadcast = True
        self.breaking = True
        self.wake()

    # -- commands from event sockets ----------------------------------------------------------------------

    def queue_command(self, command: Command) -> None:
        """Queue a command, which the channel runs at its next frame."""
        if self._finished:
            return
        self.private.append(command)
        self.wake()
        if not self._running:
            self.launch()

    def parse_events(self) -> None:
        """Run the queued commands, unless a running one has locked the channel."""
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
        """Run one command; False if it left a break behind, which ends the round."""
        call_command = (command.get("call-command") or "").lower()
        if not call_command:
            return True
        lock = strings.true(command.get("event-lock"))
        # FreeSWITCH runs the commands of a channel that is parked without audio elsewhere, and fires no event.
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
            # An application that took less than half a second isn't repeated: the loop would spin.
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

    def idle(self, deadline: float | None) -> float:
        """Run one round of an application's loop: run queued commands, or sleep until something happens.

        Return the seconds that the commands took, by which a playback is delayed.
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
        """Idle until a condition holds or the channel isn't ready any more."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not condition():
            if not self.ready or (deadline is not None and time.monotonic() >= deadline):
                return bool(condition())
            self.idle(deadline)
        return True

    def park(self) -> None:
        """Run only commands, until the socket closes, a transfer, or the hang-up."""
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
        """Take events that were sent to this session and not diverted; a parked channel fires them to all listeners."""
        while self.queued_events and not self.divert_events:
            event = self.queued_events.popleft()
            if fire:
                event.channel = self
                self.switch.bus.publish(event)

    # -- digits -------------------------------------------------------------------------------------------

    def queue_digit(self, digit: str, duration: int = 2000, source: str = "RTP") -> None:
        """Take a digit from the far end: to the bindings if there are any, else to the application."""
        if self.down:
            return
        if self.machine is not None:
            self.machine.feed(digit)
            return
        self.accept_digit(digit, duration, source)

    def accept_digit(self, digit: str, duration: int = 2000, source: str = "RTP") -> None:
        """Take a digit that no binding took."""
        sensitive = self.true("sensitive_dtmf")
        if not sensitive:
            self.switch.log.info("RECV DTMF %s:%d", digit, duration)
        self.digits.append(Dtmf(digit, duration, source, sensitive))
        self.wake()

    def dequeue_digit(self) -> Dtmf | None:
        """Return the next digit. Reading it, not pressing the key, fires the DTMF event."""
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
        """Queue an event for this session only. With ``divert_events``, its socket gets it."""
        self.queued_events.append(event)
        if len(self.queued_events) > 10_000:
            self.queued_events.popleft()
        if self.divert_events:
            if self.listeners:
                self.listeners[-1].take_diverted()
        else:
            self.wake()
