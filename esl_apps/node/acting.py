"""Do what clients ask for during a call, whichever node has it.

Any node can be asked. One that doesn't have the call tells the others through the call's switch, by an event; the one
that has it acts and answers by another. It acts over the switch's inbound connection, as a cancel does, so it needs no
socket, and a call that was adopted is no exception.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import gevent
import msgspec
from gevent.event import AsyncResult
from gevent.lock import Semaphore

from esl_apps.apps import second_party
from esl_apps.apps.legs import recording_name, recording_path, recording_settings
from esl_apps.core import actions, dialstring, node_clock, talk, terms
from esl_apps.core.actions import Action, CallState, Outcome, Unanswered, Undone, not_now, outcome_of, result, state_of
from esl_apps.core.attempt import Attempt
from esl_apps.core.call_fields import why_not_change
from esl_apps.core.faults import Refused
from esl_apps.core.reference import new_ref
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl import wire
from esl_apps.esl.answers import ReplyError, SwitchUnavailable
from esl_apps.esl.leg_commands import try_api, variable
from esl_apps.esl.switch import Switch
from esl_apps.esl.wire import Event
from esl_apps.node.calls import Calls
from esl_apps.node.live import Live
from esl_apps.node.policy import Policies
from esl_apps.node.records import Records
from esl_apps.node.switch_pool import SwitchPool
from esl_apps.process import background
from esl_apps.store.calls import CallStore
from esl_apps.store.cancel_requests import CancelRequests
from esl_apps.store.claims import Claims

log = logging.getLogger(__name__)

#: The events by which one node asks the node that has a call, and by which that one answers.
ACTION, OUTCOME = "esl_apps::action", "esl_apps::outcome"
#: The event of a SIP request on a leg of ours that has a header which the leg watches.
WATCHED = "sofia::notify_watched_header"
#: Seconds that a call's own node has to act. After them the node that was asked hangs up the legs of a cancelled call.
_TOLD = 3.0
#: Actions that the switch doesn't do, or does wrong, while the notice before a recording is played.
_AFTER_NOTICE = frozenset({actions.RECORD, actions.TRANSFER})
#: Seconds that they wait for its end, and between two looks.
_NOTICE, _LOOK = 2.0, 0.05
#: Seconds after its end on the recorded leg until it has ended on the other one, too.
_OTHER_LEG = 0.2
#: Silence behind each round of music. The switch repeats only what lasts half a second: without it, music that can't be
#: played, or a short tone, would let the two hear each other.
_PAUSE = "silence_stream://1000"
#: Actions that only inform a call's node.
_NEWS = frozenset({actions.CONSULTED, actions.PARTED})
#: Actions that don't wait for others: the one that waits for news has the turn, and a call ends in any state.
_AT_ONCE = _NEWS | {actions.CANCEL}


class Acting:
    def __init__(
        self,
        calls: Calls,
        records: Records,
        switch_pool: SwitchPool,
        policies: Policies,
        claims: Claims,
        cancel_requests: CancelRequests,
        store: CallStore,
    ) -> None:
        self._calls = calls
        calls.tell_cancel = self._tell_cancel
        self._records = records
        self._pool = switch_pool
        self._policies = policies
        self._claims = claims
        self._cancel_requests = cancel_requests
        self._store = store
        self._asked: dict[str, AsyncResult[Outcome]] = {}
        """Questions to other nodes, by their ids."""
        self._consulting: frozenset[str] = frozenset()
        self.on_header: Callable[[Live, Event], None] = lambda _live, _event: None
        """Called with each watched header of a request on a leg of this node's calls."""
        self._do: dict[str, Callable[[Live, Action], None]] = {
            actions.CANCEL: self._cancel,
            actions.HOLD: self._hold,
            actions.RESUME: self._resume,
            actions.MUTE: self._mute,
            actions.UNMUTE: self._unmute,
            actions.DIGITS: self._digits,
            actions.RECORD: self._record,
        }

    def add(self, name: str, do: Callable[[Live, Action], None], *, consulting: bool = False) -> None:
        """Add an action that another module does. ``consulting``: it may be done while a party asks a third one."""
        assert name not in self._do, name
        self._do[name] = do
        if consulting:
            self._consulting |= {name}

    # Asking -------------------------------------------------------------------------------------------

    def cancel(self, call: Mapping[str, Any], agent: str | None = None) -> None:
        """Hang up a call, this node's or (by its snapshot) another's; returns at once.

        ``agent``: the agent whose token asks. While their call rings, wait for its node to say whether they may.

        :raises StoreUnavailable: this node doesn't reach the call's switch, and Redis is down.
        :raises Undone: another agent has answered, or its node doesn't answer.
        """
        ref = str(call["call_ref"])
        if agent is not None and call.get("agents") is not None and call["bridged_at"] is None:
            self.act(call, Action(actions.CANCEL, agent=agent))
            return
        if self._calls.cancel(ref, terms.API):
            return
        switch = self._pool.find(call["switch"])
        if switch is None or not switch.connected:
            # The note first, for a process that adopts the call now.
            self._records.note_cancel(ref, terms.API)
            self._cancel_requests.add(ref)
        if switch is not None:
            background.once("call_cancelling", self._cancel_elsewhere, switch, ref, call_ref=ref)

    def _cancel_elsewhere(self, switch: Switch, ref: str) -> None:
        self._records.note_cancel(ref, terms.API)
        self._tell_cancel(switch, ref)
        gevent.sleep(_TOLD)
        # Once more, in case one of the connections was lost: a node that doesn't hear it takes its leg's end for the
        # phone's, or for the switch's.
        self._tell_cancel(switch, ref)
        self._calls.reap(switch, ref)

    def _tell_cancel(self, switch: Switch, ref: str) -> None:
        self._tell(switch, ref, Action(actions.CANCEL), "")

    def act(self, call: Mapping[str, Any], action: Action) -> CallState:
        """As :meth:`ask`, and return the call's state after it."""
        return result(self.ask(call, action))

    def ask(self, call: Mapping[str, Any], action: Action) -> Outcome:
        """Have an action done on a call, this node's or (by its snapshot) another's.

        :raises Undone: it can't be done now, or the call's switch doesn't answer.
        :raises Unanswered: its node doesn't answer, and may have begun.
        """
        ref = str(call["call_ref"])
        live = self._calls.live.get(ref)
        if live is not None:
            return self._outcome(live, action)
        if call["state"] == terms.ENDED:
            went_on = (call.get("record") or {}).get("transferred_to")
            if went_on is not None and (action.name == actions.COMPLETE or self._is_repeated(call, action, went_on)):
                return Outcome(CallState(ref, terms.ENDED, False, [], talk.OFF, went_on))
            raise Undone(409, "state", "the call has ended", state=terms.ENDED)
        switch = self._pool.find(call["switch"])
        if switch is None or not switch.connected:
            raise _unavailable("this node isn't connected to the call's switch")
        question = new_ref()
        answer = self._asked[question] = AsyncResult()
        try:
            self._tell(switch, ref, action, question)
            outcome = answer.get(timeout=_TOLD)
        except gevent.Timeout:
            unanswered = Unanswered()
            raise _unavailable(str(unanswered)) if self._claims.withdraw(question) else unanswered from None
        finally:
            del self._asked[question]
        assert outcome is not None
        result(outcome)
        return outcome

    def _is_repeated(self, call: Mapping[str, Any], action: Action, went_on: str) -> bool:
        """Return whether an action asks for the blind transfer by which a call has gone on in another one."""
        client = self._policies.now.clients.get(call["integrator"] or "")
        if action.name != actions.TRANSFER or action.mode != actions.BLIND or client is None:
            return False
        try:
            to, new = client.read_target(action.to), self._store.call(went_on)
        except (Refused, StoreUnavailable):
            return False
        return new is not None and bool(new[action.by] == to.dialled)

    def _tell(self, switch: Switch, ref: str, action: Action, question: str) -> None:
        # In hex, because the switch changes some characters of a header.
        headers = {"variable_esl_call_ref": ref, "esl_action": msgspec.json.encode(action).hex()}
        switch.post_raw(wire.custom_event(ACTION, {**headers, "esl_question": question}))

    def on_event(self, switch: Switch, event: Event) -> None:
        """Take in what another node asks or answers, and what the switch reports. Never waits."""
        if event.get("Event-Subclass") == OUTCOME:
            answer = self._asked.get(event.get("esl_question") or "")
            outcome = _read(event.get("esl_outcome"), Outcome)
            if answer is not None and outcome is not None:
                answer.set(outcome)
            return
        live = self._calls.live.get(event.var("esl_call_ref") or "")
        if event.get("Event-Subclass") == WATCHED:
            if live is not None:
                self.on_header(live, event)
            return
        action = _read(event.get("esl_action"), Action)
        if live is None or action is None:
            return
        if question := event.get("esl_question"):
            background.once("call_acting", self._answer, switch, live, action, question)
        elif action.name == actions.CANCEL:
            self._cancel(live, action)

    def _answer(self, switch: Switch, live: Live, action: Action, question: str) -> None:
        if action.name not in _NEWS and not self._claims.take(question):
            # Another process has the call, too, and has answered.
            return
        try:
            outcome = self._outcome(live, action)
        except Undone as undone:
            outcome = outcome_of(undone)
        headers = {"esl_question": question, "esl_outcome": msgspec.json.encode(outcome).hex()}
        switch.post_raw(wire.custom_event(OUTCOME, headers))

    # Doing --------------------------------------------------------------------------------------------
    #
    # `resume`, `unmute` and `record` with `resume` tell the switch even if they change nothing here, if the call is
    # adopted: the node that died may have answered the action before without having it saved.

    def _outcome(self, live: Live, action: Action) -> Outcome:
        state, attempt = self.perform(live, action), live.attempt
        ago = node_clock.now() - attempt.timeline[-1].at if attempt.ended else 0.0
        return Outcome(state, ago=ago, recorded=attempt.was_recorded)

    def perform(self, live: Live, action: Action) -> CallState:
        """Do an action on this node's call. :raises Undone: it can't be done now."""
        attempt, do = live.attempt, self._do.get(action.name)
        if do is None:
            raise _unavailable("the call's node is of a version without this action")
        if action.agent and not attempt.ended:
            reason = why_not_change(action.agent, attempt.extension, attempt.agents, attempt.bridged_at)
            if reason:
                raise Undone(403, "agent", reason)
        if action.name in _AT_ONCE:
            do(live, action)
            return state_of(attempt)
        live.turn = live.turn or Semaphore()
        with live.turn:
            if attempt.state != terms.BRIDGED or not (attempt.aleg_uuid and attempt.bleg_uuid):
                raise not_now(attempt, "the two parties are not connected")
            if attempt.consultation is not None and action.name not in self._consulting:
                raise not_now(attempt, "one party asks another: complete or cancel the transfer first")
            if not live.switch.connected:
                raise _unavailable("the call's node isn't connected to its switch")
            try:
                if action.name in _AFTER_NOTICE and not action.leg:
                    self._wait_for_notice(live, _LOOK if action.name == actions.RECORD else _OTHER_LEG)
                do(live, action)
            except SwitchUnavailable as error:
                raise Undone(503, actions.UNKNOWN, str(error)) from None
            except ReplyError as error:
                # The switch doesn't know the leg: it ends at this moment.
                log.info("action_refused", extra={"call_ref": attempt.call_ref, "reason": str(error)})
                raise not_now(attempt, "the call is ending") from None
            finally:
                # Also if it was undone: meanwhile it may have been saved as if it were done.
                attempt.save()
        return state_of(attempt)

    def _wait_for_notice(self, live: Live, more: float) -> None:
        """Wait until the notice before the recording has been played, and so many seconds ``more``.

        :raises Undone: it takes longer.
        """
        attempt = live.attempt
        notice = self._policies.now.settings.notice_in(attempt.language)
        if notice is None or attempt.recording_url is None:
            return
        until, waits = time.monotonic() + _NOTICE, False
        # The leg runs record_session next, so this is the notice's file only while that is played.
        while variable(live.switch, recorded_leg(attempt), "current_application_data") == notice:
            if time.monotonic() >= until:
                raise not_now(attempt, "the recording notice is being played")
            gevent.sleep(_LOOK)
            waits = True
        if waits:
            gevent.sleep(more)

    def _cancel(self, live: Live, _action: Action) -> None:
        self._calls.cancel(live.attempt.call_ref, terms.API)

    def _hold(self, live: Live, _action: Action) -> None:
        attempt = live.attempt
        if attempt.held:
            return
        self.play_music(live)
        talk.hold(attempt, node_clock.now(), on=True)
        attempt.note(actions.HOLD)

    def play_music(self, live: Live) -> None:
        """Play music to the customer. While an application runs on a leg, the switch passes on no sound in either
        direction; and it stops the music when the other leg ends."""
        leg = customer(live.attempt)
        # By default, `*` ends the playback.
        live.switch.api(f"uuid_setvar {leg} playback_terminators none")
        music = f"file_string://{self.music()}!{_PAUSE}"
        live.switch.post_raw(wire.execute_on(leg, "playback", music, dialstring.UNHEARD, loops=-1))

    def stop_music(self, live: Live) -> None:
        """End what :meth:`play_music` plays."""
        live.switch.api(f"uuid_break {customer(live.attempt)} all")

    def music(self) -> str:
        """Return the music on hold, as the argument of ``playback``."""
        return self._policies.now.config.dial.hold_music or "${hold_music}"

    def _resume(self, live: Live, _action: Action) -> None:
        attempt = live.attempt
        if attempt.held or live.adopted:
            self.stop_music(live)
        if attempt.held:
            talk.hold(attempt, node_clock.now(), on=False)
            attempt.note(actions.RESUME)

    def _mute(self, live: Live, action: Action) -> None:
        attempt = live.attempt
        if action.party not in attempt.muted:
            live.switch.api(f"uuid_audio {leg_of(attempt, action.party)} start read mute 1")
            talk.mute(attempt, {*attempt.muted, action.party}, node_clock.now())
            attempt.note(actions.MUTE, action.party)

    def _unmute(self, live: Live, action: Action) -> None:
        attempt = live.attempt
        muted = action.party in attempt.muted
        if muted or live.adopted:
            live.switch.api(f"uuid_audio {leg_of(attempt, action.party)} stop")
        if muted:
            talk.mute(attempt, {*attempt.muted} - {action.party}, node_clock.now())
            attempt.note(actions.UNMUTE, action.party)

    def _digits(self, live: Live, action: Action) -> None:
        live.switch.api(f"uuid_send_dtmf {leg_of(live.attempt, action.party)} {action.digits}")
        # Not which: they may be a card's number.
        live.attempt.note(actions.DIGITS, f"{len(action.digits)} to the {action.party}")

    # Recording ----------------------------------------------------------------------------------------

    def _record(self, live: Live, action: Action) -> None:
        attempt, step = live.attempt, action.step
        recording, wanted = attempt.recording, _AFTER[step]
        if recording == wanted:
            if step == actions.RESUME and live.adopted:
                self._change_recording(live, step)
            return
        if step != actions.START and recording == talk.OFF:
            raise not_now(attempt, "the call isn't recorded")
        if step == actions.START and recording == talk.PAUSED:
            raise not_now(attempt, "the recording is paused: resume or stop it")
        if step == actions.START:
            self.start_recording(live)
        else:
            self._change_recording(live, step)
        talk.record(attempt, wanted, node_clock.now())
        attempt.note(actions.RECORD, step)

    def _change_recording(self, live: Live, step: str) -> None:
        verb = {actions.PAUSE: "mask", actions.RESUME: "unmask", actions.STOP: "stop"}[step]
        live.switch.api(f"uuid_record {recorded_leg(live.attempt)} {verb} {self.recording(live.attempt)}")

    def start_recording(self, live: Live) -> None:
        """Record a talk from now on. :raises Undone: its integrator doesn't record calls."""
        attempt, policy = live.attempt, self._policies.now
        integrator = policy.config.integrator(attempt.integrator or "")
        if integrator is None or not integrator.record:
            raise not_now(attempt, "calls of this integrator are not recorded")
        attempt.recording_url = attempt.recording_url or recording_name(attempt)
        leg = recorded_leg(attempt)
        party = terms.AGENT if leg == leg_of(attempt, terms.AGENT) else terms.CALLEE
        # A second part goes behind the first one.
        settings = {**recording_settings(policy.settings, party), "RECORD_APPEND": "true"}
        pairs = ";".join(f"{name}={value}" for name, value in settings.items())
        live.switch.api(f"uuid_setvar_multi {leg} {pairs}")
        live.switch.api(f"uuid_record {leg} start {self.recording(attempt)}")

    def silence_recording(self, live: Live, leg: str) -> str:
        """Record silence from a leg that is to be with another party for a while, if the talk is recorded on it.

        Return the step of its inline dialplan that ends the silence; empty if there is none.
        """
        attempt = live.attempt
        if attempt.recording != talk.ON or leg != recorded_leg(attempt):
            return ""
        path = self.recording(attempt)
        try_api(live.switch, f"uuid_record {leg} mask {path}")
        return f"record_session_unmask:{path}!"

    def end_silence(self, live: Live) -> None:
        """Undo :meth:`silence_recording`."""
        attempt = live.attempt
        if attempt.recording == talk.ON:
            try_api(live.switch, f"uuid_record {recorded_leg(attempt)} unmask {self.recording(attempt)}")

    def stop_recording(self, live: Live) -> None:
        """End the recording of a talk whose parties go on in other calls, perhaps on the recorded leg."""
        attempt = live.attempt
        if attempt.recording != talk.OFF:
            try_api(live.switch, f"uuid_record {recorded_leg(attempt)} stop {self.recording(attempt)}")

    def recording(self, attempt: Attempt) -> str:
        """Return the file of a call's recording on the switch. It need not have one yet."""
        name = attempt.recording_url or recording_name(attempt)
        return recording_path(self._policies.now.settings.recordings, attempt.integrator or "", name)


#: What ``recording`` is after each step.
_AFTER = {actions.START: talk.ON, actions.PAUSE: talk.PAUSED, actions.RESUME: talk.ON, actions.STOP: talk.OFF}


def leg_of(attempt: Attempt, party: str) -> str:
    """Return the UUID of a party's leg: ``agent``, or ``callee`` for the customer, who may have called."""
    on_b = party == second_party(attempt)
    return (attempt.bleg_uuid if on_b else attempt.aleg_uuid) or ""


def customer(attempt: Attempt) -> str:
    """Return the UUID of the customer's leg, which hears the music."""
    return leg_of(attempt, terms.CALLEE)


def recorded_leg(attempt: Attempt) -> str:
    """Return the UUID of the leg that is recorded: the customer's, or the new party's of a transfer."""
    return (attempt.bleg_uuid or "") if attempt.transferred_from is not None else customer(attempt)


def _unavailable(message: str) -> Undone:
    return Undone(503, "unavailable", message)


def _read(text: str | None, kind: Any) -> Any:
    """Return the Struct in a header; None if there is none."""
    try:
        return msgspec.json.decode(bytes.fromhex(text or ""), type=kind)
    except (ValueError, msgspec.DecodeError):
        return None
