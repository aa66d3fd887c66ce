"""A node's way to place a call's first leg on a switch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from esl_apps.apps.ringing import Rang
from esl_apps.core import causes
from esl_apps.esl.answers import Job, SwitchFailed, SwitchUnavailable
from esl_apps.esl.legs import leg_of, telling, unreachable
from esl_apps.esl.switch import Switch
from esl_apps.esl.wire import Event
from esl_apps.node.census import Census
from esl_apps.node.dial_claim import DialClaim
from esl_apps.node.live import AWAY, KILLED, Live
from esl_apps.node.switch_pool import SwitchPool

#: Causes of an originate that made no leg, so that none ends.
_NO_LEG = frozenset({"USER_NOT_REGISTERED", "SUBSCRIBER_ABSENT", "INVALID_GATEWAY", "GATEWAY_DOWN", "INVALID_PROFILE"})
#: Seconds by which a leg's end may be reported after the originate's, and by which those of several phones differ.
_LATE, _APART = 0.5, 0.1


FindCdr = Callable[[str, str], Event | None]


class SwitchLine:
    """``ringing.Originator`` on a switch: a background job, its answer, and what to do if that doesn't come.

    ``reap(switch, call_ref, cause)`` ends all of a call's legs on a switch.
    """

    def __init__(
        self,
        live: Live,
        switch_pool: SwitchPool,
        reap: Callable[[Switch, str, str], None],
        census: Census,
        claims: Sequence[DialClaim] = (),
        find_cdr: FindCdr = lambda _ref, _uuid: None,
    ) -> None:
        """``find_cdr``: `Spool.wait_for`."""
        self._live = live
        self._pool = switch_pool
        self._reap = reap
        self._census = census
        self._claims = claims
        self._find_cdr = find_cdr
        self._tried: set[str] = set()
        self.answered_uuid = ""

    def is_lost(self) -> bool:
        return any(claim.is_lost() for claim in self._claims)

    def comes(self, seconds: float) -> bool:
        """Wait for a leg that the switch was told to send here. False: it hasn't come by then."""
        return self._live.wait(lambda: self._live.attached, time.monotonic() + seconds)

    def elsewhere(self) -> bool:
        live = self._live
        self._tried.add(live.switch.name)
        switch = self._pool.best(self._tried)
        if switch is None:
            return False
        live.move_to(switch)
        live.attempt.note("switch", f"{switch.name} is tried")
        live.attempt.save()
        return True

    def originate(self, command: str, deadline: float, *, phone: bool) -> Rang:
        rang = self._originate(command, deadline, phone=phone)
        health = self._pool.health[self._live.switch.name]
        if rang.outcome == "answered":
            health.told(0)
        elif rang.outcome == "failed":
            # A phone that fails, as a dead registration does, says nothing against the switch that asked it.
            health.told(0 if phone else rang.code)
        elif rang.outcome == "full":
            health.told(causes.SWITCH_CONGESTION)
        elif rang.outcome in ("lost", "away"):
            health.told(None)
        return rang

    def _originate(self, command: str, deadline: float, *, phone: bool) -> Rang:
        live, switch = self._live, self._live.switch
        core_uuid = switch.core_uuid
        live.ends.clear()
        live.rang = ()
        try:
            job = switch.bgapi(command)
        except SwitchUnavailable as error:
            live.attempt.note("switch_away", str(error))
            return Rang("away")
        job.notify(live.poke)
        if not live.wait(lambda: job.done, deadline):
            return self._give_up(job)
        try:
            output = job.result()
        except SwitchUnavailable:
            return self._without_job(deadline, core_uuid)
        # ``+OK UUID`` of the leg that answered, or ``-ERR CAUSE``.
        verdict, _, rest = output.strip().partition(" ")
        if verdict == "+OK":
            self.answered_uuid = rest.strip()
            return Rang("answered")
        return self._failure(rest.strip(), phone=phone)

    def _failure(self, cause: str, *, phone: bool) -> Rang:
        """Return why an originate failed: by its legs' own ends, because of several phones its one word names any, and
        it doesn't have the SIP status (hazard 39)."""
        live = self._live
        if cause in _NO_LEG:
            return Rang("failed", causes.q850(cause))
        live.wait(lambda: bool(live.ends), time.monotonic() + _LATE)
        if phone:
            # Those of its other phones: the last of them may come after the answer to the originate.
            live.wait(lambda: live.attempt.cancelled_by is not None, time.monotonic() + _APART)
        leg = telling(leg_of(end, live.clock) for end in live.ends.values())
        if leg is not None:
            return Rang("failed", leg.q850 or causes.NORMAL_UNSPECIFIED, leg=leg)
        return Rang("full") if cause in causes.NO_SESSION else Rang("failed", causes.q850(cause))

    def _learn_of_ends(self) -> None:
        """Read how legs ended while the connection was away, from the files of the switch."""
        live = self._live
        try:
            listed = self._census.legs(live.switch, time.monotonic()).get(live.attempt.call_ref, [])
        except SwitchFailed:
            return
        for uuid in set(live.rang) - live.ends.keys() - {leg.uuid for leg in listed}:
            event = self._find_cdr(live.attempt.call_ref, uuid)
            if event is not None:
                live.ends.setdefault(uuid, event)

    def _never_came(self) -> bool:
        """Whether the originate was lost on its way: the switch has no leg of this call, and none has been heard."""
        live = self._live

        def heard() -> bool:
            return bool(live.rang or live.ends or live.attached)

        try:
            listed = heard() or self._census.legs(live.switch, time.monotonic()).get(live.attempt.call_ref)
        except SwitchFailed:
            return False
        return not listed and not heard()

    def _give_up(self, job: Job) -> Rang:
        live = self._live
        self._reap(live.switch, live.attempt.call_ref, "NO_ANSWER")
        live.wait(lambda: job.done, time.monotonic() + KILLED)
        return self._timed_out()

    def _timed_out(self) -> Rang:
        legs = [leg_of(end, self._live.clock) for end in self._live.ends.values()]
        refused = telling(leg for leg in legs if leg.cause != "NO_ANSWER")
        if refused is not None and refused.answered_at is not None:
            # It answered and left while this node was held up.
            self.answered_uuid = refused.uuid
            return Rang("answered")
        if refused is not None and unreachable(legs, "NO_ANSWER"):
            return Rang("failed", refused.q850 or causes.NORMAL_UNSPECIFIED, leg=refused)
        return Rang("timed_out", causes.NO_ANSWER, heard=bool(self._live.rang), leg=telling(legs))

    def _without_job(self, deadline: float, core_uuid: str | None) -> Rang:
        """The connection broke while the phone rang. The same FreeSWITCH, back in time, goes on ringing it."""
        live, switch = self._live, self._live.switch
        live.attempt.note("switch_lost", "while ringing")
        if not live.wait(lambda: switch.connected or live.attached, min(deadline, time.monotonic() + AWAY)):
            if live.rang and time.monotonic() >= deadline:
                # It rang to the end, wherever the connection is.
                self._reap(switch, live.attempt.call_ref, "NO_ANSWER")
                return Rang("timed_out", causes.NO_ANSWER)
            self._reap(switch, live.attempt.call_ref, "NORMAL_CLEARING")
            return Rang("lost")
        if switch.core_uuid != core_uuid or self._never_came():
            return Rang("lost")
        self._learn_of_ends()

        def all_ended() -> bool:
            return bool(live.ends) and all(uuid in live.ends for uuid in live.rang)

        live.wait(lambda: live.attached or all_ended() or live.attempt.cancelled_by is not None, deadline)
        if live.attached:
            return Rang("answered")
        if all_ended():
            leg = telling(leg_of(end, live.clock) for end in live.ends.values())
            if leg is not None and leg.answered_at is not None:
                # Its socket went to another node, or to none in time.
                self.answered_uuid = leg.uuid
                return Rang("answered")
            return Rang("failed", (leg and leg.q850) or causes.NORMAL_UNSPECIFIED, leg=leg)
        self._reap(switch, live.attempt.call_ref, "NO_ANSWER")
        return Rang("timed_out", causes.NO_ANSWER, heard=bool(live.rang))
