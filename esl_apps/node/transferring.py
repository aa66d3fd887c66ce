"""Transfer a party of a live call: its leg leaves the bridge and comes to an event socket, in a call of its own.

The new call is saved before its leg moves, so the node that adopts it writes its record. Where the leg goes on is told
to the switch in one command. The switch then tries the nodes by itself, once more after the time that a node takes to
restart, and if none serves the party, plays a message and hangs up. So no death of a process leaves it in silence.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import gevent
from gevent.event import AsyncResult

from esl_apps.apps import application, note_hold, transfer
from esl_apps.apps.click2dial import NO_ROOM, limit_fault
from esl_apps.apps.legs import LONGEST, phone_of
from esl_apps.apps.ringing import Originator
from esl_apps.apps.transfer import TransferCall, consultation
from esl_apps.core import causes, node_clock, talk, terms
from esl_apps.core.actions import TRANSFER, Action, Undone, not_now
from esl_apps.core.attempt import Attempt
from esl_apps.core.billing import carry_leg, divide_leg, note_before_move, note_parting
from esl_apps.core.call import Leg
from esl_apps.core.charges import Charge
from esl_apps.core.faults import Refused
from esl_apps.core.numbers import Number
from esl_apps.core.order import IntegratorRules
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.versions import CHANNEL_VARIABLES
from esl_apps.esl.answers import SwitchFailed, SwitchUnavailable
from esl_apps.esl.leg_commands import set_variables, try_api, variable
from esl_apps.esl.legs import leg_now
from esl_apps.esl.switch import Switch
from esl_apps.esl.wire import EVENT_PLAIN, Event
from esl_apps.node.acting import customer, leg_of
from esl_apps.node.line import SwitchLine
from esl_apps.node.live import Live
from esl_apps.node.outgoing import targets
from esl_apps.node.services import Services

log = logging.getLogger(__name__)

#: A leg's first steps, as an inline dialplan.
FIRST = "m:^:sched_transfer:${esl_apps_watch}^socket:${esl_apps_nodes}^sched_cancel:^transfer:${esl_apps_again}"
#: What comes before them: it confirms a phone's transfer, and otherwise does nothing.
_CONFIRM = "m:^:blind_transfer_ack:true^unset:blind_transfer_uuid^"
#: Seconds from an answer within which the two are in their bridge, and between two looks.
_BRIDGED, _LOOK = 1.0, 0.02
#: In FreeSWITCH's dump of a leg whose bridge runs in the other leg's thread.
_WAITS = "Channel-State: CS_EXCHANGE_MEDIA"
#: Seconds for a moved leg to come if the switch's answer is missing.
_COMES = 2.0
_PATH = re.compile(r"[A-Za-z0-9/._+@-]+")


class Transferring:
    """Blind transfers, and the steps that all transfers have in common."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def transfer(self, live: Live, action: Action) -> None:
        """Begin a blind transfer, and end the call that it leaves. :raises Undone: nothing has changed."""
        if not action.leg:
            self._transfer(live, action)
            return
        old = live.attempt
        try:
            self._check_phone(old, action)
            if old.held:
                # The customer's leg has left its bridge, and still plays the music.
                talk.hold(old, node_clock.now(), on=False)
                live.switch.api(f"uuid_break {action.leg} all")
            self._transfer(live, action)
        except Undone as undone:
            # The switch is about to take the phone's leg back.
            note_told(old, self.look(live))
            old.note("transfer_refused", f"{undone.field}: {undone.message}" if undone.field else undone.message)
            raise

    def _check_phone(self, old: Attempt, action: Action) -> None:
        """:raises Undone: the leg that the switch has moved isn't one that this call's phone may transfer."""
        if action.leg != customer(old) or phone_of(self._services.policy.settings, old) is None:
            raise Undone(403, "restricted", "only the agent's registered phone transfers")

    def _transfer(self, live: Live, action: Action) -> None:
        old, services = live.attempt, self._services
        client, to = self.target(old, action.to)
        new = transfer.new_call(old, to, action.by, client, services.policy.settings.plan)
        leg = leg_of(old, terms.other_party(action.by))

        if not action.leg:
            self.wait_for_bridge(live, leg)
        told = self.look(live)

        def move() -> None:
            self._move(live, new.attempt, leg)

        old.transferred_to = new.attempt.call_ref
        moved = False
        try:
            moved = self.begin(live, new, leg, move)
        finally:
            if not moved:
                old.transferred_to = None
        if not moved:
            raise not_now(old, "the call is ending")
        now = node_clock.now()
        note_parting(old, now, now)
        note_told(old, told)
        self.hang_up(live, leg_of(old, action.by), by_phone=bool(action.leg))
        end(old, action.by, node_clock.now())
        divide_leg(old, new.attempt, leg)
        new.attempt.save()

    def wait_for_bridge(self, live: Live, leg: str) -> None:
        """Wait until a leg that has just answered is in its bridge. Moved before, it is lost: the bridge comes all the
        same, or the end of the other leg takes it along."""
        until = time.monotonic() + _BRIDGED
        while node_clock.now() - (live.attempt.bridged_at or 0.0) < _BRIDGED and time.monotonic() < until:
            try:
                if variable(live.switch, leg, "bridge_uuid"):
                    return
            except SwitchFailed:
                return
            gevent.sleep(_LOOK)

    def look(self, live: Live) -> dict[str, Leg]:
        """Return what the switch knows of the legs of a talk, by party, before they are moved."""
        told = {}
        for party in (terms.AGENT, terms.CALLEE):
            leg = leg_of(live.attempt, party)
            with suppress(SwitchFailed):
                live.switch.api(f"uuid_set_media_stats {leg}")
                dump = live.switch.api(f"uuid_dump {leg}")
                told[party] = leg_now(Event(b"", dump.encode(), EVENT_PLAIN), live.clock)
        return told

    def target(self, old: Attempt, to: str) -> tuple[IntegratorRules, Number]:
        """Return the call's client, and the number that one of its parties is connected with.

        :raises Undone: the integrator may not dial this number.
        """
        client = self._services.policy.clients.get(old.integrator or "")
        if client is None:
            raise not_now(old, "the call's integrator is not configured any more")
        try:
            return client, client.read_target(to)
        except Refused as refused:
            fault = refused.faults[0]
            raise Undone(422, fault.code, fault.message, field=fault.field) from None

    def begin(self, live: Live, new: TransferCall, leg: str, move: Callable[[], None]) -> bool:
        """Begin a call whose first leg is here already: ``move`` has the switch send it to a node. Return False if the
        switch doesn't.

        :raises Undone: a limit is reached, or Redis is down.
        """
        old, services = live.attempt, self._services
        readiness = services.readiness
        # A blind transfer takes the place of the call before.
        crowded = new.consults and (readiness.has_most_calls or not services.takes_another(new.attempt))
        if crowded or readiness.has_most_sockets:
            raise Undone(429, NO_ROOM.code, NO_ROOM.message, field=NO_ROOM.field)
        stays = [] if new.consults else old.charges_of(leg)
        charges = new.charges(stays)
        try:
            refusal = services.usage.begin(*charges)
        except StoreUnavailable as error:
            raise Undone(503, "unavailable", error.summary) from None
        if refusal is not None:
            fault = limit_fault(refusal)
            raise Undone(429, fault.code, fault.message, field=fault.field)
        new.attempt.pay(*charges)
        if new.consults:
            old.apart.append(new.attempt.call_ref)
        moved: AsyncResult[bool] = AsyncResult()

        def ring(line: Originator) -> bool:
            assert isinstance(line, SwitchLine)
            line.answered_uuid = leg
            # Before the leg moves: the flow that it leaves would end them, and the one that it comes to asks for them.
            hand_back = self.hand_over(stays, old, new.attempt, leg)
            done = False
            try:
                old.note(TRANSFER, f"to {new.attempt.call_ref}")
                old.save()
                new.attempt.save()
                # Another node finds the new call there, if this one dies in this moment.
                services.store.flush()
                move()
                done = True
            except SwitchFailed as error:
                # If only the answer to the last command is missing, the leg comes.
                done = isinstance(error, SwitchUnavailable) and line.comes(_COMES)
                if not done:
                    log.warning("transfer_failed", extra={"call_ref": old.call_ref, "reason": str(error)})
            except Exception:
                # Raised on, it would have the legs hung up that the switch takes for the new call's already.
                log.exception("transfer_failed", extra={"call_ref": old.call_ref})
            finally:
                if not done:
                    self._rename(live, leg)
                    _undo(old, new.attempt)
                    hand_back()
                    for charge in charges:
                        charge.undo()
                    new.attempt.lose(node_clock.now())
                    if new.attempt.is_emergency:
                        self.time_again(live, *filter(None, (leg, new.kept.held)))
                moved.set(done)
            return done

        services.calls.place(new.attempt, new, live.switch, ring)
        return bool(moved.get())

    def _rename(self, live: Live, leg: str) -> None:
        """Have legs that weren't moved be the first call's again. ``leg``: the one that was to be moved."""
        old = live.attempt
        with suppress(SwitchFailed):
            set_variables(live.switch, leg, self.identity(old))
            live.switch.api(f"uuid_setvar {old.bleg_uuid} esl_bleg {old.session_ref}")

    def part(self, switch: Switch, leg: str, held: str, steps: str) -> None:
        """Send a leg out of its bridge to a node, and the other one on. ``steps``: of that one, as an inline dialplan.

        FreeSWITCH moves the partner of the leg that it is told first, and the other leg may see the end of the bridge
        before it is moved, too. One that only waited for the other's thread then hangs up, so it goes first. The one
        whose thread it is would go on with its dialplan, or hang up, and parks instead.

        :raises SwitchFailed: the switch doesn't do it.
        """
        second, to, first_to = (held, steps, FIRST) if _WAITS in switch.api(f"uuid_dump {leg}") else (leg, FIRST, steps)
        switch.api(f"uuid_setvar {second} park_after_bridge true")
        try:
            switch.api(f"uuid_dual_transfer {second} {to}/inline {first_to}/inline")
        finally:
            switch.api(f"uuid_setvar {second} park_after_bridge")

    def hang_up(self, live: Live, leg: str, *, by_phone: bool) -> None:
        """End the leg of the party that leaves. A phone that has transferred the call hangs up by itself, once it hears
        that the transfer is confirmed: end its leg a second later."""
        try_api(live.switch, f"sched_hangup +1 {leg} NORMAL_CLEARING" if by_phone else f"uuid_kill {leg}")

    def hand_over(self, stays: Sequence[Charge], old: Attempt, new: Attempt, leg: str) -> Callable[[], None]:
        """Let the charges of the leg that stays go on in the new call. Return a function that takes them back."""
        parted = []
        for charge in () if new.ended else stays:
            old.drop(charge)
            parted.append((charge, charge.part(old.switch, leg)))
            new.pay(charge)

        def hand_back() -> None:
            for charge, undo in parted:
                new.drop(charge)
                undo()
                old.pay(charge)
                if old.ended:
                    charge.end()

        return hand_back

    def carry_on(self, asking: Attempt, seconds: float) -> None:
        """Bill the leg of the party that asks to its consultation from now on: the call on hold has ended, in whose
        records are its ``seconds``."""
        carry_leg(asking, seconds)
        consult, policy = consultation(asking), self._services.policy
        if consult is None or not consult.held:
            return
        number = policy.settings.plan.find(asking.extension if consult.consults == terms.AGENT else asking.number)
        client = policy.clients.get(asking.integrator or "")
        if number is None or number.is_extension or number.is_emergency or client is None:
            return
        # The new party's leg counts for the levels.
        charge = Charge(asking.call_ref, client.levels, number, aleg=True, owner=False)
        charge.before = seconds
        charge.outlive(asking.switch, asking.aleg_uuid or "")
        self._services.usage.adopt(charge)
        charge.inherit(None, seconds)
        asking.pay(charge)
        charge.talk()

    def left(self, old: Attempt) -> int:
        """Return for how many seconds a call may still go on."""
        if old.is_emergency:
            return int(LONGEST)
        client = self._services.policy.clients.get(old.integrator or "")
        ordered = transfer.seconds_left(old)
        lengths = [left for left in (ordered, *(charge.left for charge in old.charges)) if left is not None]
        began = node_clock.now() if old.bridged_at is None else old.bridged_at
        longest = LONGEST if client is None else client.longest
        return max(1, round(min([longest - (node_clock.now() - began), *lengths])))

    def untime(self, switch: Switch, new: Attempt, *legs: str) -> None:
        """Cancel the hang-ups of legs that go on to an emergency number: each was scheduled for an earlier call.

        :raises SwitchFailed: the switch doesn't do it.
        """
        for leg in legs if new.is_emergency else ():
            switch.api(f"sched_del {leg}")

    def time_again(self, live: Live, *legs: str) -> None:
        """Undo :meth:`untime` for legs that are their first call's again: no flow times a call that is followed."""
        for leg in legs:
            try_api(live.switch, f"sched_hangup +{self.left(live.attempt)} {leg} ALLOTTED_TIMEOUT")

    def _move(self, live: Live, new: Attempt, leg: str) -> None:
        """Take a leg out of its bridge. :raises SwitchFailed: the switch doesn't do it."""
        old, switch = live.attempt, live.switch
        set_variables(switch, leg, {**self.identity(new), "hangup_after_bridge": "true"}, self._plan(old.language))
        # The leg that leaves may end after the new call has begun, which hears of its session's B-legs.
        for uuid in (old.aleg_uuid, old.bleg_uuid):
            switch.api(f"uuid_setvar {uuid} esl_bleg")
        self._services.acting.stop_recording(live)
        if old.muted:
            switch.api(f"uuid_audio {leg} stop")
        self.untime(switch, new, leg)
        switch.api(f"uuid_transfer {leg} {_CONFIRM}{FIRST.removeprefix('m:^:')} inline")

    def identity(self, attempt: Attempt) -> dict[str, str]:
        """Return the variables that make a leg the call's A-leg, so that any node can go on with it."""
        return {
            **CHANNEL_VARIABLES,
            "esl_app": attempt.app,
            "esl_call_ref": attempt.call_ref,
            "esl_session_ref": attempt.session_ref,
            "esl_node": self._services.policy.settings.node,
        }

    def nodes(self) -> str:
        """Return the nodes that a moved leg is offered to, as the argument of ``socket``."""
        return targets(self._services, transfer.APPLICATION.path)

    def last_words(self, language: str | None) -> str:
        """Return the steps for a party whom no node serves: a message, and the hang-up. ``language``: the call's."""
        message = "hangup:NORMAL_TEMPORARY_FAILURE"
        path = self._services.policy.prompt("unavailable", 8000, language)
        return f"playback:{path},{message}" if _PATH.fullmatch(path) else message

    def _plan(self, language: str | None) -> dict[str, str]:
        """Return the variables of the leg's way: to a node, to the nodes once more, and to a message.

        A command has no place for spaces, so each step names variables for what it needs. FreeSWITCH replaces them when
        it comes to that step, also those in a variable's value.
        """
        message = self.last_words(language)
        serve = "socket:${esl_apps_nodes}!sched_cancel:"
        wait = f"sleep:{terms.RESTARTED}"
        again = f"m:!:sched_transfer:${{esl_apps_last}}!{serve}!{wait}!{serve}!transfer:${{esl_apps_message}}"
        return {
            "esl_apps_nodes": self.nodes(),
            "esl_apps_watch": f"+{terms.WATCHDOG} '{again}' inline",
            "esl_apps_again": f"'{again}' inline",
            "esl_apps_last": f"+{2 * terms.WATCHDOG} {message} inline",
            "esl_apps_message": f"{message} inline",
        }


def _undo(old: Attempt, new: Attempt) -> None:
    """Have a session go on without a call whose leg the switch didn't move. Nothing was dialled, and no client knows of
    it: it gets no record, unless the first call has ended in this moment and names it."""
    ref = new.call_ref
    named = old.ended and (old.transferred_to == ref or ref in old.apart)
    if not old.ended:
        old.transferred_to = None
        old.apart = [other for other in old.apart if other != ref]
    new.follows, new.closes = old.transferred_to != ref, named
    if consultation(new) is not None:
        transfer.note(new, held="")


def note_told(old: Attempt, told: Mapping[str, Leg]) -> None:
    """Note what ``Transferring.look`` has returned, once the legs are moved."""
    note_before_move(old, told, holds=application(old.app).holds)


def end(old: Attempt, leaves: str, at: float) -> None:
    """End a call that one of its parties has left for another."""
    note_hold(old, at)
    old.end(terms.ANSWERED, causes.NORMAL_CLEARING, leaves, at)
