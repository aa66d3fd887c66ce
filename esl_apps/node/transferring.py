"""Transfer a party of a live call: its leg leaves the bridge and comes to an event socket, in a call of its own.

The new call is saved before its leg moves, so the node that adopts it writes its record. Where the leg goes on is told
to the switch in one command. The switch then tries the nodes by itself, once more after the time that a node takes to
restart, and if none serves the party, plays a message and hangs up. So no death of a process leaves it in silence.
"""

from __future__ import annotations

import logging
import re

from gevent.event import AsyncResult

from esl_apps.apps import transfer
from esl_apps.apps.click2dial import limit_fault
from esl_apps.apps.ringing import Originator
from esl_apps.apps.transfer import TransferCall
from esl_apps.core import causes, dialstring, node_clock, talk, terms
from esl_apps.core.actions import TRANSFER, Action, Undone, not_now
from esl_apps.core.attempt import Attempt
from esl_apps.core.call import Call
from esl_apps.core.faults import Refused
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.versions import CHANNEL_VARIABLES
from esl_apps.esl.session import ReplyError
from esl_apps.esl.switch import SwitchUnavailable
from esl_apps.node.acting import customer, leg_of
from esl_apps.node.line import SwitchLine
from esl_apps.node.live import Begin, Live
from esl_apps.node.outgoing import targets
from esl_apps.node.services import Services

log = logging.getLogger(__name__)

#: Seconds for a node to take the leg, and milliseconds until the nodes are tried once more: as in the dialplan.
_WATCHDOG, _RESTARTED = 8, 3000
#: A leg's first steps, as an inline dialplan.
_FIRST = "m:^:sched_transfer:${esl_apps_watch}^socket:${esl_apps_nodes}^sched_cancel:^transfer:${esl_apps_again}"
_PATH = re.compile(r"[A-Za-z0-9/._+@-]+")


class Transferring:
    def __init__(self, services: Services) -> None:
        self._services = services
        services.acting.add(TRANSFER, self.transfer)

    def transfer(self, live: Live, action: Action) -> None:
        """Begin a transfer, and end the call that it leaves. :raises Undone: nothing has changed."""
        old, services = live.attempt, self._services
        stays = terms.CALLEE if action.by == terms.AGENT else terms.AGENT
        new = self._new_call(old, action)
        charges = new.charges(services.policy)
        try:
            refusal = services.usage.begin(*charges)
        except StoreUnavailable as error:
            raise Undone(503, "unavailable", error.summary) from None
        if refusal is not None:
            fault = limit_fault(refusal)
            raise Undone(429, fault.code, fault.message, field=fault.field)
        new.attempt.pay(*charges)
        leg = leg_of(old, stays)
        moved: AsyncResult[bool] = AsyncResult()

        def ring(line: Originator) -> bool:
            assert isinstance(line, SwitchLine)
            line.answered_uuid = leg
            done = self._move(live, new.attempt, leg)
            if not done:
                new.attempt.end(terms.LOST, causes.NORMAL_UNSPECIFIED, terms.SYSTEM, node_clock.now())
            moved.set(done)
            return done

        def run(call: Call, begin: Begin) -> None:
            new.answered(call, services.policy, services.host(begin, transfer.REF))

        services.calls.place(new.attempt, live.switch, ring, run)
        if not moved.get():
            old.transferred_to = None
            raise not_now(old, "the call is ending")
        self._hand_over(old, new.attempt, stays, leg)
        self._end(old, action.by)

    def _new_call(self, old: Attempt, action: Action) -> TransferCall:
        """:raises Undone: the integrator may not dial this number."""
        policy = self._services.policy
        client = policy.clients.get(old.integrator or "")
        if client is None:
            raise not_now(old, "the call's integrator is not configured any more")
        try:
            to = client.read_target(action.to)
        except Refused as refused:
            fault = refused.faults[0]
            raise Undone(422, fault.code, fault.message, field=fault.field) from None
        return transfer.new_call(old, to, action.by, client, policy.settings.plan)

    def _hand_over(self, old: Attempt, new: Attempt, stays: str, leg: str) -> None:
        """Let the charges of the leg that stays go on in the new call."""
        party = old.number if stays == terms.CALLEE else old.extension
        for charge in [charge for charge in old.charges if charge.number and charge.number.dialled == party]:
            old.drop(charge)
            charge.outlive(old.switch, leg)
            new.pay(charge)
        new.save()

    def _move(self, live: Live, new: Attempt, leg: str) -> bool:
        """Take a leg out of its bridge. Return False if the switch doesn't do it."""
        old, switch = live.attempt, live.switch
        old.transferred_to = new.call_ref
        old.note(TRANSFER, f"to {new.call_ref}")
        old.save()
        # Another node finds the new call there, if this one dies in this moment.
        self._services.store.flush()
        try:
            for command in self._commands(old, new, leg):
                switch.api(command)
            switch.api(f"uuid_transfer {leg} {_FIRST} inline")
        except (SwitchUnavailable, ReplyError) as error:
            log.warning("transfer_failed", extra={"call_ref": old.call_ref, "reason": str(error)})
            return False
        return True

    def _commands(self, old: Attempt, new: Attempt, leg: str) -> list[str]:
        """Return what makes a leg the new call's A-leg: by these variables any node goes on with it."""
        variables = {
            **CHANNEL_VARIABLES,
            "esl_app": new.app,
            "esl_call_ref": new.call_ref,
            "esl_session_ref": new.session_ref,
            "esl_node": self._services.policy.settings.node,
            "hangup_after_bridge": "true",
        }
        # How a list of variables holds spaces and quotes.
        plan = {name: value.replace(" ", "\\s").replace("'", "\\'") for name, value in self._plan().items()}
        pairs = ";".join(f"{name}={value}" for name, value in {**dialstring.encoded(variables), **plan}.items())
        commands = [f"uuid_setvar_multi {leg} {pairs}", f"uuid_setvar {leg} esl_bleg"]
        if old.recording != talk.OFF:
            commands.append(f"uuid_record {customer(old)} stop {self._services.acting.recording(old)}")
        if old.muted:
            commands.append(f"uuid_audio {leg} stop")
        return commands

    def _plan(self) -> dict[str, str]:
        """Return the variables of the leg's way: to a node, to the nodes once more, and to a message.

        A command has no place for spaces, so each step names variables for what it needs. FreeSWITCH replaces them when
        it comes to that step, also those in a variable's value.
        """
        message = "hangup:NORMAL_TEMPORARY_FAILURE"
        path = self._services.policy.prompt("unavailable", 8000)
        if _PATH.fullmatch(path):
            message = f"playback:{path},{message}"
        serve = "socket:${esl_apps_nodes}!sched_cancel:"
        again = (
            f"m:!:sched_transfer:${{esl_apps_last}}!{serve}!sleep:{_RESTARTED}!{serve}!transfer:${{esl_apps_message}}"
        )
        return {
            "esl_apps_nodes": targets(self._services, transfer.APPLICATION.path),
            "esl_apps_watch": f"+{_WATCHDOG} '{again}' inline",
            "esl_apps_again": f"'{again}' inline",
            "esl_apps_last": f"+{2 * _WATCHDOG} {message} inline",
            "esl_apps_message": f"{message} inline",
        }

    def _end(self, old: Attempt, leaves: str) -> None:
        now = node_clock.now()
        old.hold_time = round(talk.seconds(old, talk.HOLD, now)) or old.hold_time
        old.end(terms.ANSWERED, causes.NORMAL_CLEARING, leaves, now)
