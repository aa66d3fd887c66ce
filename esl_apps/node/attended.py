"""The transfer key of an agent's phone that is in two calls: a REFER with Replaces.

FreeSWITCH answers it by itself. If it knows both dialogs, it joins their far ends, whatever calls they are in. So our
legs have it refuse that (``deny_refer_requests``) and report the header (``sip_watch_headers``). If both calls are that
phone's and of one client, a node then joins the other two parties, as at the end of a consultation, and hangs up the
phone's legs. By then the phone has been told 403.

If FreeSWITCH doesn't know the dialog, it takes it for one of another server and dials the REFER's target, past all
checks. No variable of a leg prevents that. But when the target answers, FreeSWITCH hangs it up if the leg that sent the
REFER has ended. So the node ends that call.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gevent

from esl_apps.apps import application, transfer
from esl_apps.apps.legs import has_phone, phone_of
from esl_apps.apps.transfer import consultation
from esl_apps.core import node_clock, talk, terms
from esl_apps.core.actions import ATTENDED, CONSULTED, JOIN, JOINED, Action, Unanswered, Undone, not_now, was_recorded
from esl_apps.core.billing import note_parting
from esl_apps.core.numbers import Number
from esl_apps.core.reference import new_ref
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.answers import ReplyError, SwitchFailed, SwitchUnavailable
from esl_apps.esl.leg_commands import try_api, variable
from esl_apps.esl.wire import Event
from esl_apps.node import presence
from esl_apps.node.acting import customer, leg_of
from esl_apps.node.consulting import Consulting
from esl_apps.node.live import AWAY, Live
from esl_apps.node.services import Services
from esl_apps.node.transferring import Transferring, end, note_told
from esl_apps.process import background

log = logging.getLogger(__name__)

_REPLACES = re.compile(r"Replaces=", re.IGNORECASE)
#: A header that has no Replaces. One of more than 511 bytes ends before its first part that doesn't fit: FreeSWITCH
#: reports that much, and what else is in its buffer.
_WHOLE = re.compile(r"[^<>?]*<[^<>?]*>[^?]*")
#: The beginning of a leg's variable ``transfer_to`` after a REFER without Replaces, and how often to look for it.
_BLIND, _LOOKS = "blind", 10
#: The variable in which FreeSWITCH keeps the Call-ID that a REFER names, if it knows that dialog.
_DIALOG = "_sofia_replaces_"
#: The variable of a leg that FreeSWITCH dials for a REFER: the leg that sent it.
_REFERRED_BY = "sip_h_X-FS-Refer-From"
_UUID = re.compile(r"[0-9a-f-]{36}")
#: Seconds after which to look for the dialog a second time.
_ONCE_MORE = 0.05
#: Seconds after which a node no longer joins a call with another one.
_PATIENCE = 3.0
#: Seconds for which that one's node looks whether it has if it doesn't answer: also the switch's answer may be late,
#: and the connection to it break. And seconds between two looks.
_LATE, _LOOK = 10.0, 0.1
#: Seconds from the moment when the two are joined until the other call's record says so.
_RECORDED = 2.0


@dataclass(frozen=True, slots=True)
class _Other:
    """The phone's other call."""

    call: Mapping[str, Any]
    phone: str
    """The UUID of the phone's leg."""
    party: str
    """The UUID of the other party's leg."""
    number: Number
    """That party's."""


class Attended:
    def __init__(self, services: Services, transferring: Transferring, consulting: Consulting) -> None:
        self._services = services
        self._transferring = transferring
        self._consulting = consulting
        self._joining: set[str] = set()
        """The calls that are about to be joined with others, by ``call_ref``."""

    def register(self) -> None:
        """Have the actions of the transfer key done here, and hear of each REFER."""
        acting = self._services.acting
        acting.add(ATTENDED, self._join)
        acting.add(JOIN, self._give)
        acting.on_header = self._heard

    def _heard(self, live: Live, event: Event) -> None:
        """A REFER has come on a leg. Never waits."""
        leg, header = event.uuid or "", event.get("Header-Value") or ""
        seen = _REPLACES.search(header) is not None
        if (seen or not _WHOLE.fullmatch(header)) and _UUID.fullmatch(leg):
            work = self._refer if seen else self._refer_unless_blind
            background.once("attended_transfer", work, live, leg, call_ref=live.attempt.call_ref)

    def _refer_unless_blind(self, live: Live, leg: str) -> None:
        """A REFER has come whose header is cut, so that Replaces may be in the rest."""
        try:
            for _ in range(_LOOKS):
                gevent.sleep(_ONCE_MORE)
                if variable(live.switch, leg, "transfer_to").startswith(_BLIND):
                    return
        except SwitchFailed:
            # The leg has left.
            return
        self._refer(live, leg)

    def _refer(self, live: Live, leg: str) -> None:
        attempt = live.attempt
        try:
            dialog = variable(live.switch, leg, _DIALOG)
            if not dialog:
                gevent.sleep(_ONCE_MORE)
                dialog = variable(live.switch, leg, _DIALOG)
            if dialog:
                self._services.acting.perform(live, Action(ATTENDED, leg=leg, ref=dialog))
            else:
                self._end(live, leg)
        except Undone as undone:
            log.info("transfer_refused", extra={"call_ref": attempt.call_ref, "reason": undone.message})
            attempt.note("transfer_refused", undone.message)
            attempt.save()
        except SwitchFailed as error:
            log.info("transfer_refused", extra={"call_ref": attempt.call_ref, "reason": str(error)})

    def _end(self, live: Live, leg: str) -> None:
        """End a call of which a leg has had the switch dial."""
        ref = live.attempt.call_ref
        log.warning("refer_to_unknown_dialog", extra={"call_ref": ref})
        live.attempt.note("refer_to_unknown_dialog", "the switch dials what it names: the call is ended")
        self._services.calls.cancel(ref, terms.SYSTEM)
        # Unless the REFER itself sets that variable, the leg that the switch dials names the one that sent it.
        live.switch.api(f"hupall CALL_REJECTED {_REFERRED_BY} {leg}")

    # The call in which the REFER comes ---------------------------------------------------------------------

    def _join(self, live: Live, action: Action) -> None:
        """Join this call's other party with that of the phone's other call. :raises Undone: nothing has changed."""
        old, services = live.attempt, self._services
        agent = phone_of(services.policy.settings, old)
        if action.leg != leg_of(old, terms.AGENT) or agent is None:
            raise Undone(403, "restricted", "only the agent's registered phone transfers")
        if consultation(old) is not None or old.call_ref in self._joining:
            raise not_now(old, "it is being transferred")
        if (old.integrator or "") not in services.policy.clients:
            raise not_now(old, "the call's integrator is not configured any more")
        self._joining.add(old.call_ref)
        try:
            other = self._other(live, agent, action)
            if other.call["call_ref"] in self._joining:
                raise not_now(old, "the other call is being transferred")
            self._connect(live, agent, action.leg, other)
        finally:
            self._joining.discard(old.call_ref)

    def _other(self, live: Live, agent: Number, action: Action) -> _Other:
        """Find the phone's call with a Call-ID.

        :raises Undone: it has no such call, or that one is another client's.
        """
        switch, services = live.switch, self._services

        def of(leg: str, name: str) -> str:
            return variable(switch, leg, name)

        found = (leg for leg in presence.legs(switch, agent) if leg != action.leg)
        phone = next((leg for leg in found if of(leg, "sip_call_id") == action.ref), None)
        if phone is None:
            raise Undone(404, "unknown", "the agent's phone has no such call")
        if of(phone, "esl_account_id") != of(action.leg, "esl_account_id"):
            raise Undone(403, "restricted", "the phone's other call is not of the same client")
        ref = of(phone, "esl_call_ref")
        own = services.calls.live.get(ref)
        try:
            call = services.store.call(ref) if own is None and ref else None
        except StoreUnavailable as error:
            raise Undone(503, "unavailable", error.summary) from None
        if own is not None:
            # Should it be no call of this node any more once it is joined, it has ended.
            began = own.attempt.bridged_at
            began = None if began is None else node_clock.shown(began)
            call = {"call_ref": ref, "callee": own.attempt.number, "state": terms.ENDED}
            call |= {"app": own.attempt.app, "bridged_at": began, "gateway": own.attempt.gateway}
        if call is None or ref == live.attempt.call_ref:
            raise Undone(404, "unknown", "no node has the phone's other call")
        number = services.policy.settings.plan.find(call["callee"])
        if number is None:
            raise Undone(409, "state", "the other party of the second call has no number")
        return _Other(call, phone, of(phone, "bridge_uuid"), number)

    def _connect(self, live: Live, agent: Number, phone: str, other: _Other) -> None:
        old, services = live.attempt, self._services
        stays, new = customer(old), new_ref()
        self._transferring.wait_for_bridge(live, stays)
        self._end_hold(live)
        told = self._transferring.look(live)
        for leg in (phone, other.phone):
            # A phone that holds ends the other party's leg with its own, also if that has left its bridge by then.
            live.switch.api(f"uuid_setvar {leg} hold_hangup_xfer_exten hangup:inline")
        old.transferred_to = new
        joined = None
        try:
            joining = Action(JOIN, leg=stays, ref=other.phone, to=agent.dialled, next=new, session=old.session_ref)
            joined = self._ask(live, joining, other)
        finally:
            if joined is None:
                self._undo(live)
        at, recorded = joined
        note_told(old, told)
        old.note(ATTENDED, f"to {new}")
        old.apart.append(other.call["call_ref"])
        _unmute(live)
        for leg in (phone, other.phone):
            self._transferring.hang_up(live, leg, by_phone=False)
        shared = gateway = None
        if application(other.call["app"]).second_party == terms.CALLEE:
            shared = max(0.0, node_clock.shown(at) - (other.call["bridged_at"] or node_clock.shown(at)))
            gateway = other.call.get("gateway")
        to = other.number.dialled
        action = Action(
            CONSULTED, step=JOINED, leg=other.party, to=to, next=new, shared=shared, gateway=gateway, recorded=recorded
        )
        self._consulting.part(live, terms.AGENT, action, at)
        if shared is not None and has_phone(services.policy.settings, other.number):
            try_api(live.switch, f"uuid_setvar {other.party} confirm_blind_transfer true")

    def _ask(self, live: Live, joining: Action, other: _Other) -> tuple[float, bool | None]:
        """Have the other call's node join the two. Return when they were joined, and whether that call was recorded.

        :raises Undone: nothing has changed.
        """
        store = self._services.store
        try:
            outcome = self._services.acting.ask(other.call, joining)
            return node_clock.now() - outcome.ago, outcome.recorded
        except Unanswered:
            joined, until = None, time.monotonic() + _LATE
            while time.monotonic() < until:
                call = None
                with suppress(StoreUnavailable):
                    call = store.call(other.call["call_ref"])
                now = node_clock.now()
                if call is not None and call["state"] == terms.ENDED:
                    record = call.get("record") or {}
                    if record.get("transferred_to") != joining.next:
                        raise
                    ended: float = record["ended_at"]
                    return now - max(0.0, node_clock.shown(now) - ended), was_recorded(call)
                if joined is None and _are_joined(live, joining.leg, other.party, 0.0):
                    # Its node may have died since.
                    joined, until = now, min(until, time.monotonic() + _RECORDED)
                gevent.sleep(_LOOK)
            if joined is None:
                raise
            return joined, other.call.get("recording") == talk.ON

    def _end_hold(self, live: Live) -> None:
        """End the music of a party on hold before its leg leaves the bridge in which it plays: it may play on."""
        if live.attempt.held:
            self._services.acting.stop_music(live)

    def _hold_again(self, live: Live) -> None:
        """Undo :meth:`_end_hold`."""
        if live.attempt.held:
            with suppress(SwitchFailed):
                self._services.acting.play_music(live)

    def _undo(self, live: Live) -> None:
        """Have a call go on that was not joined with another one. If it has ended in this moment, its record names the
        next call, which gets one, too."""
        old, services, policy = live.attempt, self._services, self._services.policy
        new, old.transferred_to = old.transferred_to, None
        if not old.ended:
            self._hold_again(live)
            return
        client, to = policy.clients.get(old.integrator or ""), policy.settings.plan.find(old.number)
        if client is None or to is None or old.record is None or old.record.transferred_to != new:
            return
        plan, dialled = policy.settings.plan, old.is_emergency
        attempt = transfer.new_call(old, to, terms.AGENT, client, plan, new or "", dialled=dialled).attempt
        services.calls.begin(attempt, live.switch)
        attempt.lose(node_clock.now())

    # The phone's other call --------------------------------------------------------------------------------

    def _give(self, live: Live, action: Action) -> None:
        """Join the other party of this call with a leg, and end this call. :raises Undone: nothing has changed."""
        old = live.attempt
        if old.extension != action.to or leg_of(old, terms.AGENT) != action.ref:
            raise Undone(403, "restricted", "the other call is not that phone's")
        if consultation(old) is not None or old.session_ref != old.call_ref:
            # Its session has records already, and can't become part of another one.
            raise not_now(old, "the other call is a transfer, or a consultation")
        leaves, began = customer(old), time.monotonic()
        self._transferring.wait_for_bridge(live, leaves)
        self._end_hold(live)
        told = self._transferring.look(live)
        for leg in (action.leg, leaves):
            live.switch.api(f"uuid_setvar {leg} hangup_after_bridge true")
        live.switch.api(f"uuid_setvar {leaves} esl_bleg {action.next}")
        old.transferred_to = action.next
        # The switch hangs up the agent's legs before it answers.
        joined, at = False, node_clock.now()
        try:
            if time.monotonic() - began > _PATIENCE:
                raise not_now(old, "the switch takes too long")
            live.switch.api(f"uuid_bridge {action.leg} {leaves}")
            joined = True
        except SwitchUnavailable:
            # Only its answer may be missing. If they are joined, this call's own flow ends it meanwhile.
            old.session_ref = action.session
            joined = _are_joined(live, action.leg, leaves, AWAY)
            if not joined:
                old.session_ref = old.call_ref
                raise
        finally:
            if not joined:
                self._undo(live)
        note_told(old, told)
        old.note(JOIN, f"to {action.next}")
        _unmute(live)
        note_parting(old, at, at)
        self._services.acting.stop_recording(live)
        old.session_ref = action.session
        end(old, terms.AGENT, at)


def _are_joined(live: Live, leg: str, other: str, seconds: float) -> bool:
    """Whether the switch has joined two legs, or does so within this time."""
    until = time.monotonic() + seconds
    while True:
        try:
            if variable(live.switch, leg, "bridge_uuid") == other:
                return True
        except SwitchUnavailable:
            pass
        except ReplyError:
            return False
        if time.monotonic() >= until:
            return False
        gevent.sleep(_LOOK)


def _unmute(live: Live) -> None:
    """Let the party that stays be heard again."""
    for party in live.attempt.muted:
        try_api(live.switch, f"uuid_audio {leg_of(live.attempt, party)} stop")
