"""The B-legs of one caller's current bridge, as their events report them."""

from __future__ import annotations

from collections.abc import Callable

from esl_apps.core import causes, node_clock
from esl_apps.core.call import Bridged, Leg, Progress
from esl_apps.esl.legs import LIVES, failure_of_all, leg_of, refused_by, telling, unreachable
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.esl.wire import Event

#: The events that say how far a leg has come.
OF_LEGS = LIVES | {b"CHANNEL_HANGUP_COMPLETE"}
#: The most legs of one bridge; a switch that names more is not believed.
_MOST = 200
#: Seconds by which the last event of one of several legs may come after the end of their bridge.
_LATE = 0.5


class Blegs:
    """The legs of one bridge after the other."""

    __slots__ = (
        "_aleg",
        "_clock",
        "_legs",
        "_listed",
        "_progress",
        "_up",
        "_waiting",
        "answered",
        "by_bridge",
        "by_user",
        "killed",
    )

    def __init__(self, aleg: str, clock: SwitchClock) -> None:
        self._aleg = aleg
        self._clock = clock
        self._legs: dict[str, Leg] = {}
        self._progress: Progress | None = None
        self._listed = 0
        self._up = False
        self._waiting: Leg | None = None
        self.answered: Leg | None = None
        """The leg that the caller is connected with."""
        self.killed = False
        """The application has ended them, so what they report is no news."""
        self.by_bridge = self.by_user = False

    def begin(self, progress: Progress, *, up: bool, by_bridge: bool, by_user: bool) -> None:
        """Forget the legs of the bridge before.

        ``up``: A is answered. ``by_bridge``: several users ring, and A's bridge tells who has answered. ``by_user``: a
        leg tells whose it is.
        """
        self._legs.clear()
        self._progress = progress
        self._up = self._up or up
        self._waiting = self.answered = None
        self.killed = False
        self.by_bridge, self.by_user = by_bridge, by_user

    def drop_callback(self) -> None:
        """Drop the callback."""
        self._progress = None

    # Events -------------------------------------------------------------------------------------------

    def tell(self, event: Event, name: bytes) -> None:
        """Take in a leg's event. ``name``: its own, or an earlier event that it implies (CHANNEL_ANSWER, …)."""
        uuid = event.uuid
        if uuid is None:
            return
        if uuid == self._aleg:
            self._tell_of_a(name)
            return
        before = self._legs.get(uuid)
        if before is None and len(self._legs) >= _MOST:
            return
        leg = leg_of(event, self._clock, with_user=self.by_user)
        if before is not None and leg.user is None:
            leg.user = before.user
        self._legs[uuid] = leg
        if self.answered is not None and self.answered.uuid == uuid:
            self.answered = leg
        if self.killed or self._progress is None:
            return
        if name == b"CHANNEL_ANSWER" and not self.by_bridge:
            # B answers first, then A. If A's answer fails, the two are never connected.
            self._waiting = leg
            if self._up:
                self._joined(leg)
        elif name == b"CHANNEL_PROGRESS":
            self._progress("ringing", leg.ringing_at or node_clock.now(), leg)
        elif name == b"CHANNEL_PROGRESS_MEDIA":
            self._progress("early_media", leg.ringing_at or node_clock.now(), leg)

    def _tell_of_a(self, name: bytes) -> None:
        if name == b"CHANNEL_ANSWER":
            self._up = True
            if self._waiting is not None and not self.killed:
                self._joined(self._waiting)

    def on_bridge(self, event: Event) -> None:
        """Note which of several phones answered: the one that A is bridged with."""
        other = event.get("Other-Leg-Unique-ID") or ""
        # Only the first: a caller whose call goes on elsewhere, after a transfer, is bridged again.
        if self.by_bridge and self.answered is None and not self.killed and event.uuid == self._aleg:
            self._joined(self._legs.setdefault(other, Leg(other)))

    def _joined(self, leg: Leg) -> None:
        if self.answered is None and self._progress is not None:
            self.answered = leg
            self._progress("answered", leg.answered_at or node_clock.now(), leg)

    # Outcomes -----------------------------------------------------------------------------------------

    @property
    def open(self) -> list[str]:
        """The legs, by UUID, whose ends have not been heard."""
        return [uuid for uuid, leg in self._legs.items() if leg.ended_at is None]

    @property
    def all_ended(self) -> bool:
        return all(leg.ended_at for leg in self._legs.values())

    @property
    def of_users(self) -> tuple[Leg, ...]:
        """All legs, if they tell whose they are."""
        return tuple(self._legs.values()) if self.by_user else ()

    @property
    def last(self) -> Leg | None:
        """The leg that was heard of last."""
        return next(reversed(self._legs.values()), None)

    def talked(self, bridged_to: str | None) -> Leg | None:
        """Return the leg that talked with the caller, otherwise the one that says most: an earlier gateway's says
        least. Two phones may answer in the same tick: then ``bridged_to``, of A's end, says which one talked."""
        leg = self.answered or telling(self._legs.values()) or self.last
        return self._legs.get(bridged_to or "", leg) if len(self._legs) > 1 else leg

    def failure(self, event: Event, wait: Callable[[Callable[[], bool], float], bool]) -> Bridged:
        """Return why B did not answer (hazard 23): from its legs' own ends if they came, else from A's variables.

        ``event``: the end of the bridge. ``wait(done, seconds)`` waits for events.
        """
        # A's variable lists the legs of all its bridges. The last one's end may be reported after the bridge's.
        before, self._listed = self._listed, (event.var("originate_causes") or "").count(";")
        made = self._listed - before
        wait(lambda: sum(leg.q850 is not None for leg in self._legs.values()) >= made, _LATE)
        if not made and not self._legs and event.var("originate_failed_cause") in causes.NO_SESSION:
            return Bridged(False, causes.SWITCH_CONGESTION, by_switch=True)
        if self.by_bridge:
            return failure_of_all(self._legs.values())
        said = _failed(telling(self._legs.values())) or refused_by(event)
        return said or Bridged(False, causes.NORMAL_UNSPECIFIED, bleg=self.last)

    def time_out(self, killed: str) -> Bridged:
        """Return the outcome after a time-out: the legs that still rang were ended with the cause ``killed``."""
        if not self.by_bridge and unreachable(self._legs.values(), killed):
            refused = _failed(telling(leg for leg in self._legs.values() if leg.cause != killed))
            if refused is not None:
                return refused
        return Bridged(False, causes.NO_ANSWER, bleg=self.last, timed_out=True)


def _failed(leg: Leg | None) -> Bridged | None:
    if leg is None or leg.q850 is None:
        return None
    return Bridged(False, leg.q850, leg.cause or "NORMAL_UNSPECIFIED", leg)
