"""Consultations: a party of a live call asks a third one, while the other one is on hold.

The call goes on, on hold. The party that asks gets a call of its own, in which the third party is dialled
(``apps.transfer``). The next step is in the legs' dialplans, so that the switch takes it even if no node lives:

- The party that asks comes back to the one on hold when the third one is busy, doesn't answer or leaves.
- When the party that asks hangs up after the answer, the third one goes to the party on hold. ``complete`` is just that
  hang-up.
- When they hang up before the answer, the party on hold has lost their partner: a node hangs up.

From the first move on, no event socket has the call's legs: it is followed, as an adopted one is (``node.following``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import gevent
from msgspec.structs import replace

from esl_apps.apps import transfer
from esl_apps.apps.legs import LONGEST
from esl_apps.apps.transfer import KeptTransfer, TransferCall, consultation
from esl_apps.core import node_clock, talk, terms
from esl_apps.core.actions import (
    BACK,
    COMPLETE,
    CONSULT,
    CONSULTED,
    GONE,
    JOINED,
    PARTED,
    TAKE_BACK,
    TRANSFER,
    Action,
    Undone,
    not_now,
    was_recorded,
)
from esl_apps.core.attempt import Attempt, Moment
from esl_apps.core.billing import divide_leg, note_parting, share_of
from esl_apps.core.call_fields import Before
from esl_apps.core.reference import is_reference
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.answers import SwitchFailed
from esl_apps.esl.leg_commands import is_up, set_variables, try_api, variable
from esl_apps.node.acting import leg_of
from esl_apps.node.following import ALONE, Following
from esl_apps.node.live import Live
from esl_apps.node.services import Services
from esl_apps.node.transferring import Transferring, end, note_told
from esl_apps.process import background

log = logging.getLogger(__name__)

#: The steps of the leg on hold, as an inline dialplan. Music that can't be played must not end the call.
_HELD = "m:^:sched_hangup:${esl_apps_limit}^endless_playback:${esl_apps_music}^playback:${esl_apps_silence}"
#: The variable of the new party's leg that says where it goes when the party that asks hangs up.
_WAY = "transfer_after_bridge"
#: Seconds for which a client waits for the end of a consultation.
_SETTLED = 2.0
#: Seconds for a consultation to be adopted, and to end, after the call that waits for it, and between two looks.
_ADOPTED, _LOOK = 5.0, 0.1
#: Seconds from an answer within which the new party's leg has its way, and between two looks.
_READY, _GLANCE = 0.8, 0.02


class Consulting:
    def __init__(self, services: Services, transferring: Transferring, following: Following) -> None:
        self._services = services
        self._transferring = transferring
        self._following = following
        self._settling: set[str] = set()
        """Calls whose consultation is over, and which end or go on at this moment."""

    def register(self) -> None:
        """Have the actions of a transfer done here, and hear how calls go on."""
        services, following = self._services, self._following
        acting = services.acting
        acting.add(TRANSFER, self.transfer, consulting=True)
        acting.add(COMPLETE, self._complete, consulting=True)
        acting.add(TAKE_BACK, self._take_back, consulting=True)
        acting.add(CONSULTED, self._consulted, consulting=True)
        acting.add(PARTED, self._parted, consulting=True)
        services.calls.on_change = self._changed
        services.calls.on_socket_lost = self._socket_lost
        following.review = self._review
        following.left = self._left_by_all

    # At a client's request ----------------------------------------------------------------------------

    def transfer(self, live: Live, action: Action) -> None:
        """Begin a transfer of either mode. :raises Undone: nothing has changed."""
        old = live.attempt
        if old.consultation is not None:
            if action.mode != CONSULT or not self._is_asked(old, action):
                raise not_now(old, "one party asks another: complete or cancel the transfer first")
        elif consultation(old) is not None:
            raise not_now(old, "a consultation is not transferred: complete or cancel it")
        elif action.mode == CONSULT:
            self._begin(live, action)
        else:
            self._transferring.transfer(live, action)

    def _is_asked(self, old: Attempt, action: Action) -> bool:
        """Return whether the consultation that goes on is the one that is wanted."""
        _client, to = self._transferring.target(old, action.to)
        live = self._services.calls.live.get(old.consultation or "")
        consult = None if live is None else consultation(live.attempt)
        return consult is not None and (consult.to, consult.consults) == (to.dialled, action.by)

    def _begin(self, live: Live, action: Action) -> None:
        old = live.attempt
        client, to = self._transferring.target(old, action.to)
        leg, held = leg_of(old, action.by), leg_of(old, terms.other_party(action.by))
        new = transfer.new_consultation(old, to, action.by, held, client, self._services.policy.settings.plan)
        followed, adopted = old.followed, live.adopted
        self._transferring.wait_for_bridge(live, leg)
        told = self._transferring.look(live)
        old.consultation, old.consults, old.followed = new.attempt.call_ref, action.by, True
        old.asks_emergency, moved = to.is_emergency, False
        old.spare()
        try:
            moved = self._transferring.begin(live, new, leg, lambda: self._move(live, new, leg, held))
        finally:
            if not moved:
                old.consultation, old.consults, old.asks_emergency = None, None, False
                old.spare()
                old.followed = followed or live.adopted is not adopted
        if not moved:
            self._services.acting.end_silence(live)
            raise not_now(old, "the call is ending")
        now = node_clock.now()
        note_told(old, told)
        talk.hold(old, now, on=True)
        talk.mute(old, (), now)
        if not live.adopted:
            live.attached = live.adopted = True
            self._following.follow(live)

    def _move(self, live: Live, new: TransferCall, leg: str, held: str) -> None:
        """Take both legs out of their bridge: one comes to a node, the other one hears music.

        :raises SwitchFailed: the switch doesn't do it.
        """
        old, switch, transferring = live.attempt, live.switch, self._transferring
        limit = f"+{transferring.left(old)} ALLOTTED_TIMEOUT"
        held_limit = f"+{int(LONGEST)} ALLOTTED_TIMEOUT" if new.attempt.is_emergency else limit
        silence = "silence_stream://-1"
        set_variables(switch, held, {}, {"esl_apps_limit": held_limit, "esl_apps_silence": silence})
        # Alone, because a tone may hold the character that separates several variables.
        switch.api(f"uuid_setvar {held} esl_apps_music {self._services.acting.music()}")
        unmask = self._services.acting.silence_recording(live, leg)
        # A B-leg stays one. But no longer one of the session's, or the end of the consultation would take it with it.
        role = f"set:esl_bleg={new.attempt.call_ref}!" if leg == old.bleg_uuid else ""
        if held == old.bleg_uuid:
            switch.api(f"uuid_setvar {held} esl_bleg {new.attempt.call_ref}")
        again = (
            f"m:!:set:esl_call_ref={old.call_ref}!set:esl_app={old.app}!{role}"
            f"sched_hangup:{limit}!{unmask}intercept:{held}!hangup:NORMAL_CLEARING"
        )
        plan = {
            "esl_apps_nodes": transferring.nodes(),
            "esl_apps_watch": f"+{terms.WATCHDOG} '{again}' inline",
            "esl_apps_again": f"'{again}' inline",
        }
        set_variables(switch, leg, {**transferring.identity(new.attempt), "hangup_after_bridge": "false"}, plan)
        switch.api(f"uuid_setvar {leg} esl_bleg")
        for party in old.muted:
            switch.api(f"uuid_audio {leg_of(old, party)} stop")
        transferring.untime(switch, new.attempt, leg, held)
        transferring.part(switch, leg, held, _HELD)

    def _complete(self, live: Live, _action: Action) -> None:
        """Let the party that asks hang up."""
        old = live.attempt
        if old.consultation is None:
            raise not_now(old, "neither party asks another")
        asking = self._services.calls.live.get(old.consultation)
        state = asking.attempt.state if asking is not None else self._state_of(old.consultation)
        if state != terms.BRIDGED:
            raise not_now(old, "the new party has not answered")
        asking_leg = leg_of(old, old.consults or "")
        self._wait_for_way(live, asking_leg)
        live.switch.api(f"uuid_kill {asking_leg} NORMAL_CLEARING")
        live.wait(lambda: old.ended, time.monotonic() + _SETTLED)

    def _wait_for_way(self, live: Live, leg: str) -> None:
        """Wait until the new party, who may have just answered, would go to the one on hold. ``leg``: of the party that
        asks. :raises Undone: it doesn't come to that."""
        until = time.monotonic() + _READY
        while True:
            new = variable(live.switch, leg, "bridge_uuid")
            if is_reference(new) and variable(live.switch, new, _WAY):
                return
            if time.monotonic() > until:
                raise not_now(live.attempt, "the new party is not connected yet")
            gevent.sleep(_GLANCE)

    def _take_back(self, live: Live, _action: Action) -> None:
        """Hang up the new party. The dialplan of the one that asked does the rest."""
        old, ref = live.attempt, live.attempt.consultation
        if ref is None:
            return
        call = None
        with suppress(StoreUnavailable):
            call = self._services.store.call(ref)
        self._services.acting.cancel(call or {"call_ref": ref, "switch": old.switch})
        live.wait(lambda: old.ended or old.consultation is None, time.monotonic() + _SETTLED)

    def _state_of(self, ref: str) -> str | None:
        """:raises Undone: Redis is down."""
        try:
            call = self._services.store.call(ref)
        except StoreUnavailable as error:
            raise Undone(503, "unavailable", error.summary) from None
        return None if call is None else call["state"]

    # As the calls go on -------------------------------------------------------------------------------

    def _socket_lost(self, live: Live) -> bool:
        """Whether a call whose socket was lost is followed from now on."""
        attempt = live.attempt
        attempt.followed = attempt.followed or consultation(attempt) is not None
        if attempt.followed and not live.adopted:
            # A consultation, or a call whose legs are about to move for one, even if the switch then doesn't move them.
            live.adopted = True
            attempt.save()
            self._following.follow(live)
        return attempt.followed

    def _changed(self, attempt: Attempt, moment: Moment) -> None:
        """A call has entered a state, or has ended. Never waits."""
        consult = consultation(attempt)
        if consult is not None and moment.what == terms.BRIDGED:
            background.once("consultation_answered", self._answered, attempt, consult)
        if not attempt.ended:
            return
        if attempt.consultation is not None:
            live = self._services.calls.live.get(attempt.consultation)
            parted = Action(PARTED, seconds=share_of(attempt, leg_of(attempt, attempt.consults or "")))
            if live is not None:
                self._parted(live, parted)
            else:
                background.once("consultation_parted", self._tell_parted, attempt.consultation, parted)
        if consult is not None and consult.held:
            # Otherwise the party on hold has left.
            background.once("consultation_over", self._over, attempt)

    def _answered(self, attempt: Attempt, consult: KeptTransfer) -> None:
        """Have the new party go to the one on hold when the one that asks hangs up."""
        switch, leg = self._services.switch_pool.find(attempt.switch), attempt.bleg_uuid
        if switch is None or not leg or not consult.held:
            return
        # A client may have it recorded only later.
        stop = f"stop_record_session:{self._services.acting.recording(attempt)}"
        steps = f"m:^:{stop}^set:esl_call_ref={consult.next}^intercept:{consult.held}^hangup:NORMAL_CLEARING"
        try:
            set_variables(switch, leg, {}, {_WAY: f"'{steps}':inline"})
        except SwitchFailed as error:
            log.warning("transfer_failed", extra={"call_ref": attempt.call_ref, "reason": str(error)})

    def _tell_parted(self, ref: str, parted: Action) -> None:
        """Tell another node's consultation that the party on hold has left."""
        try:
            call = self._services.store.call(ref)
            if call is not None and call["state"] != terms.ENDED:
                self._services.acting.act(call, parted)
        except (StoreUnavailable, Undone) as error:
            log.warning("consultation_untold", extra={"call_ref": ref, "reason": str(error)})

    def _parted(self, live: Live, action: Action) -> None:
        """Go on without the party on hold."""
        if action.seconds is not None:
            self._transferring.carry_on(live.attempt, action.seconds)
        transfer.note(live.attempt, held="")
        live.attempt.save()
        if live.attempt.bleg_uuid:
            # Or the switch would send the new party to the one on hold, who has left.
            forget = f"uuid_setvar {live.attempt.bleg_uuid} {_WAY}"
            background.once("consultation_alone", try_api, live.switch, forget)

    def _over(self, attempt: Attempt) -> None:
        """Tell the call that waits for a consultation how that has ended."""
        services, consult = self._services, consultation(attempt)
        assert consult is not None
        old_ref = attempt.transferred_from or ""
        if attempt.transferred_to is not None:
            step = JOINED
        elif consult.back or self._carries(attempt, old_ref):
            step = BACK
        else:
            step = GONE
        action = Action(
            CONSULTED,
            step=step,
            ref=attempt.call_ref,
            leg=attempt.bleg_uuid or "",
            to=consult.to,
            next=consult.next,
            # The switch parts them at once, and the node hears that some tenths of a second later.
            seconds=node_clock.now() - attempt.timeline[-1].at,
            shared=(attempt.record.b_seconds if attempt.record is not None else None) or 0.0,
            gateway=attempt.gateway,
            recorded=attempt.was_recorded,
        )
        live = services.calls.live.get(old_ref)
        try:
            if live is not None:
                self._consulted(live, action)
            elif (call := services.store.call(old_ref)) is not None and call["state"] != terms.ENDED:
                services.acting.act(call, action)
        except (StoreUnavailable, Undone) as error:
            # The node that follows it will see that this one has ended.
            log.warning("consultation_untold", extra={"call_ref": old_ref, "reason": str(error)})

    def _carries(self, attempt: Attempt, ref: str) -> bool:
        """Whether the leg that asked belongs to this call again."""
        switch = self._services.switch_pool.find(attempt.switch)
        if switch is not None and attempt.aleg_uuid:
            with suppress(SwitchFailed):
                return variable(switch, attempt.aleg_uuid, "esl_call_ref") == ref
        return False

    def _consulted(self, live: Live, action: Action) -> None:
        """Go on after a consultation."""
        old = live.attempt
        if old.ended or old.consultation != action.ref:
            return
        self._settling.add(old.call_ref)
        try:
            self._settle(live, action)
        finally:
            self._settling.discard(old.call_ref)
        live.poke()

    def _settle(self, live: Live, action: Action) -> None:
        old = live.attempt
        live.alone_since = None
        consults, old.consultation, old.consults = old.consults or terms.AGENT, None, None
        asked_emergency, old.asks_emergency = old.asks_emergency, False
        if action.step != JOINED:
            # Otherwise its charges end, or are spared in the next call if that is one to the emergency number.
            old.spare()
        old.note(CONSULTED, action.step)
        now = node_clock.now()
        # By another node's clock, perhaps.
        at = max(old.bridged_at or now, now - max(0.0, action.seconds or 0.0))
        goes_on = action.leg if action.step == JOINED else leg_of(old, consults)
        try_api(live.switch, f"uuid_audio {goes_on} stop")  # No call would know of the consultation's mute.
        if asked_emergency and action.step != JOINED:
            self._transferring.time_again(live, leg_of(old, terms.other_party(consults)))
        if action.step == BACK or (action.step == GONE and not self._is_up(live, terms.other_party(consults))):
            # If both parties have hung up, the ends of their legs show how the call ended.
            talk.hold(old, at, on=False)
            old.save()
        else:
            self.part(live, consults, action, at)

    def part(self, live: Live, leaves: str, action: Action, at: float) -> None:
        """End a call that one of its parties has left, and begin the next one's if there is another party.

        ``at``: when the switch parted or joined them. One call is billed up to then, the next one from then on.
        """
        old, now = live.attempt, node_clock.now()
        # A party that hasn't been joined with another one is hung up now.
        stays_until = at if action.step == JOINED else now
        a_leaves = leg_of(old, leaves) == old.aleg_uuid
        note_parting(old, *((at, stays_until) if a_leaves else (stays_until, at)))
        self._services.acting.stop_recording(live)
        recorded = old.recording == talk.ON and action.recorded is not False
        new = self._next(live, leaves, action, at) if action.step == JOINED else None
        if new is None:
            end(old, leaves, stays_until)
            self._services.calls.reap(live.switch, old.call_ref)
            return
        stays = new.attempt.aleg_uuid or ""
        self._transferring.hand_over(old.charges_of(stays), old, new.attempt, stays)
        end(old, leaves, at)
        divide_leg(old, new.attempt, stays)
        new.attempt.save()
        if recorded:
            with suppress(Undone, SwitchFailed):
                self._services.acting.start_recording(new)
                talk.record(new.attempt, talk.ON, node_clock.now())
        self._following.follow(new)

    def _next(self, live: Live, leaves: str, action: Action, at: float) -> Live | None:
        """Begin the call of the two that are left, whom the switch joined at this time. None: it can't be."""
        old, services, policy = live.attempt, self._services, self._services.policy
        client, to = policy.clients.get(old.integrator or ""), policy.settings.plan.find(action.to)
        if client is None or to is None:
            return None
        held = leg_of(old, terms.other_party(leaves))
        plan, placed = policy.settings.plan, action.shared is not None
        joined = transfer.new_call(old, to, leaves, client, plan, action.next, dialled=placed)
        attempt = joined.attempt
        attempt.aleg_uuid, attempt.bleg_uuid, attempt.followed = held, action.leg or None, True
        attempt.gateway = action.gateway
        if action.shared != 0:
            attempt.before = Before(bleg=action.shared)
        old.transferred_to = attempt.call_ref
        new = services.calls.begin(attempt, live.switch)
        new.attached = new.adopted = True
        identity = self._transferring.identity(attempt)
        try:
            with services.calls.moving(live, new, held, action.leg):
                self._transferring.untime(live.switch, attempt, held, action.leg)
                set_variables(live.switch, held, identity)
                live.switch.api(f"uuid_setvar {held} esl_bleg")
                set_variables(live.switch, action.leg, identity)
        except SwitchFailed as error:
            log.warning("transfer_failed", extra={"call_ref": attempt.call_ref, "reason": str(error)})
        # The new party's leg was counted in the consultation, perhaps by another node. Pay for it from now on.
        charges = [] if action.shared is None else joined.charges(old.charges_of(held))
        services.usage.adopt(*charges)
        attempt.pay(*charges)
        for charge in charges:
            charge.talk(node_clock.now() - at)
        attempt.dialed_at = at
        attempt.enter(terms.AGENT_ANSWERED, at)
        attempt.enter(terms.BRIDGED, at)
        return new

    def _review(self, live: Live, legs: int) -> None:
        """Look after a call without a flow: has it lost a leg, or a consultation whose end it wasn't told?"""
        attempt = live.attempt
        status = self._over_unheard(attempt) if attempt.consultation is not None else None
        if status is None and (legs != 1 or attempt.consultation is not None or consultation(attempt) is not None):
            live.alone_since = None
        elif live.alone_since is None:
            live.alone_since = time.monotonic()
        elif time.monotonic() - live.alone_since >= ALONE:
            live.alone_since = None
            if status is None:
                self._services.calls.reap_orphan(live.switch, attempt.call_ref)
            else:
                self._consulted(live, self._outcome(live, status, legs))

    def _left_by_all(self, live: Live) -> None:
        """Find out whether the parties of a call none of whose legs is up went on in the call after its consultation.
        That may have been adopted, too, and be about to end."""
        attempt, until = live.attempt, time.monotonic() + _ADOPTED
        if leg_of(attempt, terms.other_party(attempt.consults or terms.AGENT)) in live.ends:
            # The party on hold has hung up.
            if attempt.consultation is not None:
                self._services.acting.stop_recording(live)
            return
        while not attempt.ended and time.monotonic() < until:
            status = self._over_unheard(attempt) if attempt.consultation is not None else None
            if status is not None:
                self._consulted(live, self._outcome(live, status, 0))
            if attempt.consultation is None and attempt.call_ref not in self._settling:
                return
            gevent.sleep(_LOOK)

    def _over_unheard(self, attempt: Attempt) -> Mapping[str, Any] | None:
        """Return a consultation that has ended, by its status, although its node hasn't said so."""
        ref = attempt.consultation or ""
        if ref in self._services.calls.live:
            return None
        with suppress(StoreUnavailable):
            call = self._services.store.call(ref)
            if call is None or call["state"] == terms.ENDED:
                return call or {}
        return None

    def _outcome(self, live: Live, status: Mapping[str, Any], legs: int) -> Action:
        """Return how a consultation has ended, from its record and from the legs that are up."""
        attempt = live.attempt
        record = status.get("record") or {}
        action = Action(CONSULTED, step=BACK if legs > 1 else GONE, ref=attempt.consultation or "")
        new = record.get("transferred_to")
        if new is not None:
            leg, held = "", leg_of(attempt, terms.other_party(attempt.consults or terms.AGENT))
            with suppress(SwitchFailed):
                leg = variable(live.switch, held, "bridge_uuid")
            if not leg:
                # They may have hung up since.
                leg = next((cdr.uuid for cdr in self._services.switch_cdr.legs(new) if cdr.uuid != held), "")
            to = status["callee" if attempt.consults == terms.AGENT else "agent"]
            shared, gateway = record.get("b_seconds") or 0.0, record.get("gateway")
            action = replace(action, step=JOINED, leg=leg, to=to, next=new, shared=shared, gateway=gateway)
            action = replace(action, recorded=was_recorded(status))
        # Last, after the switch was asked.
        ago = node_clock.shown(node_clock.now()) - record["ended_at"] if record else None
        return replace(action, seconds=ago)

    def _is_up(self, live: Live, party: str) -> bool:
        with suppress(SwitchFailed):
            return is_up(live.switch, leg_of(live.attempt, party))
        return False
