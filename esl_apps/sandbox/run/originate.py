"""Placing calls: a dial string becomes legs, and the legs one that answered or a cause."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import gevent

from esl_apps.sandbox.leg import media
from esl_apps.sandbox.leg.channel import Channel, State
from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.run.sleeper import Sleeper
from esl_apps.sandbox.wire import causes, strings

if TYPE_CHECKING:
    from esl_apps.sandbox.switch import Switch

INHERITED = (
    "group_confirm_key",
    "group_confirm_file",
    "forked_dial",
    "fail_on_single_reject",
    "hangup_on_single_reject",
    "ignore_early_media",
    "bridge_early_media",
    "originate_continue_on_timeout",
    "ignore_ring_ready",
    "return_ring_ready",
    "ring_ready",
    "instant_ringback",
    "progress_timeout",
    "language",
)
"""What of the caller's variables counts for the legs that it dials, if the dial string does not say."""

DIAL_STATUS = {
    "ORIGINATOR_CANCEL": "CANCEL",
    "USER_BUSY": "BUSY",
    "NO_ANSWER": "NOANSWER",
    "DESTINATION_OUT_OF_ORDER": "INVALIDARGS",
    "INVALID_PROFILE": "INVALIDARGS",
    "CALL_REJECTED": "DONTCALL",
}
DEFAULT_TIMEOUT = 60
#: Between dial strings of an enterprise originate.
TOGETHER = ":_:"
#: Seconds between two looks at its attempts: the core's own loop sleeps as long.
_LOOK = 0.02


@dataclass
class Outcome:
    """What became of an attempt: the leg that answered (or has early media), or why there is none."""

    cause: str
    leg: Channel | None = None


@dataclass
class Attempt:
    """One dial string being dialled."""

    switch: Switch
    caller: Channel | None
    dial_string: str
    timeout: int = 0
    variables: dict[str, str] | None = None
    """Set for a nested attempt, ``user/`` inside another: the outer one's variables."""
    profile: CallerProfile | None = None
    no_block: bool = False
    """Of a ``user/`` in a fork: ring the first contact only, and do not wait."""
    depth: int = 0
    made: list[Channel] = field(default_factory=list)
    """Every leg that was made, nested attempts' too."""
    _vars: dict[str, str] = field(default_factory=dict)
    _legs: list[Channel] = field(default_factory=list)

    def run(self) -> Outcome:
        """Dial, wait, decide."""
        caller = self.caller
        if TOGETHER in self.dial_string:
            return self._enterprise()
        timeout = self.timeout or strings.number(caller.get("call_timeout") if caller else None)
        variables = dict(self.variables or {})
        if caller is not None:
            caller.originating = True
            self._export(caller, variables)
        data = self.dial_string.lstrip(" ")
        for opening, closing in (("<", ">"), ("{", "}")):
            if data.startswith(opening):
                parsed = strings.brackets(data, opening, closing, ",")
                if parsed is None:
                    return self._done("DESTINATION_OUT_OF_ORDER")
                found, data = parsed
                variables.update(found)
                data = data.lstrip(" ")
        if not data:
            return self._done("DESTINATION_OUT_OF_ORDER")
        if caller is not None:
            for name in INHERITED:
                value = caller.get(name)
                if value is not None and name not in variables:
                    variables[name] = value
            caller.set("originate_disposition", "failure")
            caller.set("DIALSTATUS", "INVALIDARGS")
        self._vars = variables
        timeout = strings.number(variables.get("originate_timeout")) or timeout
        outcome = Outcome("DESTINATION_OUT_OF_ORDER")
        alternatives = _split(data, "|")
        if self.no_block:
            alternatives = alternatives[:1]
        for alternative in alternatives:
            outcome = self._alternative(alternative, timeout or DEFAULT_TIMEOUT, len(alternatives) > 1)
            if outcome.leg is not None or (caller is not None and not caller.ready):
                break
        return outcome

    def _enterprise(self) -> Outcome:
        """Dial strings that ring at once, each an attempt of its own (enterprise originate)."""
        caller = self.caller
        exported: dict[str, str] = {}
        if caller is not None:
            caller.originating = True
            self._export(caller, exported)
        attempts = [
            Attempt(
                self.switch,
                None,
                part,
                self.timeout,
                dict(exported),
                caller.profile.clone() if caller is not None else None,
                made=self.made,
            )
            for part in self.dial_string.split(TOGETHER)
        ]
        tries = [gevent.spawn(attempt.run) for attempt in attempts]

        def winner() -> Channel | None:
            legs = [one.value.leg for one in tries if one.ready() and one.value is not None]
            return next((leg for leg in legs if leg is not None and not leg.down), None)

        tones, sounding = self._ringback(), False
        sleeper = caller.sleeper if caller is not None else Sleeper(self.switch.tick)
        while winner() is None and not all(one.ready() for one in tries):
            if caller is not None:
                if not caller.ready:
                    break
                if not tones and any(leg.ring_ready for leg in self.made):
                    caller.ring()
                elif tones and not sounding and caller.media_ready:
                    caller.heard.append(lambda: tones)
                    sounding = True
            self._wait(sleeper, _LOOK)
        if sounding and caller is not None:
            caller.heard.pop()
        joined = winner()
        cancelled = caller is not None and not caller.ready
        for leg in self.made:
            if leg is not joined and not leg.down:
                leg.hangup("ORIGINATOR_CANCEL" if cancelled else "LOSE_RACE")
        self._legs = [joined] if joined is not None else []
        if joined is None:
            return self._done("ORIGINATOR_CANCEL" if cancelled else "NORMAL_UNSPECIFIED")
        if caller is not None:
            self._bond(joined)
            joined.set("call_uuid", caller.get("call_uuid") or caller.uuid)
            self._pass_callee_id(joined, caller)
            if joined.answered:
                caller.answer()
            elif joined.early_media:
                caller.pre_answer()
        return self._done("SUCCESS", joined)

    def _export(self, caller: Channel, variables: dict[str, str]) -> None:
        """``export_vars``: the caller's variables that its legs get too."""
        names = caller.get("export_vars")
        if not names:
            return
        for name in names.split(","):
            value = caller.get(name)
            if value:
                variables[name] = value
        variables["export_vars"] = names

    # -- one alternative: legs that ring at once -----------------------------------------------------------

    def _alternative(self, text: str, timeout: int, more: bool) -> Outcome:
        caller = self.caller
        self._legs = []
        parts = _split(text, ",")
        if self.no_block:
            parts = parts[:1]
        sleeper = caller.sleeper if caller is not None else Sleeper(self.switch.tick)
        ignore = self._vars.get("ignore_early_media", "")
        early_ok = not (
            strings.true(ignore)
            or ignore in ("consume", "ring_ready")
            or strings.true(self._vars.get("bridge_early_media"))
        )
        reason = ""
        answered: Channel | None = None
        for part in parts:
            if caller is not None and not caller.ready:
                break
            local: dict[str, str] = {}
            target = part.lstrip(" ")
            if target.startswith("["):
                parsed = strings.brackets(target, "[", "]", ",")
                if parsed is None:
                    return self._done("DESTINATION_OUT_OF_ORDER")
                local, target = parsed
            leg, cause = self._dial(target.strip(" "), local, early_ok, len(parts) > 1 or more, timeout)
            if leg is None:
                reason = cause
                continue
            leg.watcher = sleeper
            self._legs.append(leg)
        if self.no_block:
            if not self._legs:
                return self._done(reason or "DESTINATION_OUT_OF_ORDER")
            if caller is not None:
                self._joined(caller, self._legs[0])
            return Outcome("SUCCESS", self._legs[0])
        if not self._legs:
            cancelled = caller is not None and not caller.ready
            return self._done("ORIGINATOR_CANCEL" if cancelled else reason or "DESTINATION_OUT_OF_ORDER")
        # Whole seconds of the clock, so up to one early.
        deadline = int(time.time()) + timeout
        instant = strings.true(self._vars.get("instant_ringback"))
        verdict = ""
        tones = self._ringback()
        sounding = False
        try:
            while True:
                if caller is not None and not caller.ready:
                    verdict = "cancel"
                    break
                answered = self._winner(early_ok)
                if answered is not None:
                    break
                live = [leg for leg in self._legs if not leg.down and leg.originating]
                if not live:
                    break
                if strings.true(self._vars.get("fail_on_single_reject")) and len(live) < len(self._legs):
                    verdict = "timeout"
                    break
                now = time.time()
                if now >= deadline:
                    verdict = "timeout"
                    break
                ringing = any(leg.ring_ready or leg.early_media for leg in live)
                if caller is not None and not tones and self._tells_ringing(live):
                    if len(self._legs) == 1:
                        self._pass_callee_id(live[0], caller)
                    caller.ring()
                if caller is not None and tones and not sounding and (ringing or instant):
                    # Ringback goes to a caller who has media; with ``ringback`` he gets early media for it.
                    if not caller.media_ready:
                        caller.pre_answer()
                    caller.heard.append(lambda: tones)
                    sounding = True
                self._wait(sleeper, min(deadline - now, self._next_timeout(live)))
        finally:
            if sounding and caller is not None:
                caller.heard.pop()
        for leg in self._legs:
            leg.watcher = None
        return self._decide(answered, verdict, reason)

    def _tells_ringing(self, live: list[Channel]) -> bool:
        """Whether the caller is to be told that a callee rings."""
        return not strings.true(self._vars.get("ignore_ring_ready")) and any(leg.ring_ready for leg in live)

    def _wait(self, sleeper: Sleeper, seconds: float) -> None:
        if self.caller is not None:
            # Commands for the caller run while it waits; what they change is seen in the next round.
            self.caller.idle(time.monotonic() + max(0.0, seconds))
        else:
            sleeper.sleep(max(0.0, seconds))

    def _winner(self, early_ok: bool) -> Channel | None:
        for leg in self._legs:
            if leg.down or not leg.originating:
                continue
            if leg.answered or (early_ok and leg.early_media):
                return leg
            if strings.true(self._vars.get("return_ring_ready")) and leg.ring_ready:
                return leg
        return None

    def _next_timeout(self, live: list[Channel]) -> float:
        """Hang up legs over their own ``leg_timeout``; seconds until the next is."""
        soonest = 3600.0
        for leg in live:
            seconds = strings.number(leg.get("leg_timeout"))
            if seconds:
                left = leg.profile.times.created // 1_000_000 + seconds - time.time()
                if left <= 0:
                    leg.hangup("NO_ANSWER")
                    left = 0.01
                soonest = min(soonest, left)
        return soonest

    def _ringback(self) -> set[int]:
        caller = self.caller
        if caller is None or self.depth:
            return set()
        value = caller.get("transfer_ringback") if caller.answered else None
        value = value or caller.get("ringback")
        return media.ringback_tones(caller.expand(value)) if value else set()

    def _decide(self, winner: Channel | None, verdict: str, reason: str) -> Outcome:
        caller = self.caller
        for leg in self._legs:
            if leg is winner or leg.down or not leg.originating:
                continue
            if verdict == "timeout":
                leg.hangup("NO_ANSWER")
            elif verdict == "cancel":
                leg.hangup("ORIGINATOR_CANCEL")
            else:
                leg.set("group_dial_status", "loser")
                leg.hangup("LOSE_RACE" if len(self._legs) > 1 else "NO_ANSWER")
        if winner is not None:
            winner.originating = False
            if caller is not None:
                self._pass_callee_id(winner, caller)
                if winner.answered:
                    caller.answer()
                elif winner.early_media:
                    caller.pre_answer()
            return self._done("SUCCESS", winner)
        if verdict == "cancel":
            return self._done("ORIGINATOR_CANCEL")
        if verdict == "timeout":
            return self._done("NO_ANSWER")
        for leg in self._legs:
            if leg.hangup_cause:
                return self._done(leg.hangup_cause)
        return self._done(reason or "ORIGINATOR_CANCEL")

    def _pass_callee_id(self, leg: Channel, caller: Channel) -> None:
        caller.profile.callee_id_name = leg.profile.callee_id_name
        caller.profile.callee_id_number = leg.profile.callee_id_number
        caller.profile.touch()

    def _done(self, cause: str, leg: Channel | None = None) -> Outcome:
        caller = self.caller
        if caller is not None and leg is not None and not caller.ready:
            leg.hangup("ORIGINATOR_CANCEL")
            leg, cause = None, "ORIGINATOR_CANCEL"
        if caller is not None and not self.no_block:
            caller.set("originate_disposition", cause)
            caller.set("DIALSTATUS", DIAL_STATUS.get(cause, cause))
            for dialled in self._legs:
                caller.push("originate_causes", f"{dialled.uuid};{dialled.hangup_cause or 'NONE'}")
        if leg is not None and caller is not None:
            self._joined(caller, leg)
        return Outcome(cause, leg)

    def _joined(self, caller: Channel, leg: Channel) -> None:
        caller.other = ("originatee", _other(leg.profile, "inbound"))
        caller.set("originate_signal_bond", None)
        caller.set("signal_bond", leg.uuid)

    # -- one leg ----------------------------------------------------------------------------------------

    def _dial(
        self, target: str, local: dict[str, str], early_ok: bool, forked: bool, timeout: int
    ) -> tuple[Channel | None, str]:
        kind, slash, data = target.partition("/")
        if not slash or not data:
            return None, "DESTINATION_OUT_OF_ORDER" if kind not in self.switch.endpoint_kinds else "INVALID_URL"
        variables = {**self._vars, **local}
        profile = self._new_profile(variables, data)
        self._vars["originate_early_media"] = "true" if early_ok else "false"
        if kind == "error":
            return None, causes.parse(data, "DESTINATION_OUT_OF_ORDER")
        if kind == "user":
            return self._user(data, variables, local, profile, forked, timeout)
        if kind not in self.switch.endpoint_kinds:
            return None, "CHAN_NOT_IMPLEMENTED"
        leg, cause = self.switch.outgoing(kind, data, variables, profile, self.caller)
        if leg is None:
            return None, cause
        self._bond(leg)
        self.made.append(leg)
        leg.fire("CHANNEL_OUTGOING")
        self._install(leg, local, kind)
        if not self.no_block:
            self.switch.start_leg(leg)
        return leg, "SUCCESS"

    def _new_profile(self, variables: dict[str, str], data: str) -> CallerProfile:
        caller = self.caller
        if self.profile is not None:
            profile = self.profile.clone()
        elif caller is not None:
            profile = caller.profile.clone()
        else:
            profile = CallerProfile(caller_id_number="0000000000", ani="", context="default", dialplan="XML")
        profile.direction = "outbound"
        profile.logical_direction = "outbound"
        profile.uuid = profile.chan_name = profile.profile_index = profile.transfer_source = ""
        profile.destination_number = data
        if variables.get("origination_caller_id_number"):
            profile.caller_id_number = variables["origination_caller_id_number"]
        elif caller is not None and caller.get("effective_caller_id_number"):
            profile.caller_id_number = caller.get("effective_caller_id_number") or ""
        if "origination_caller_id_name" in variables:
            profile.caller_id_name = variables["origination_caller_id_name"]
        elif caller is not None and caller.get("effective_caller_id_name"):
            profile.caller_id_name = caller.get("effective_caller_id_name") or ""
        if caller is None:
            profile.orig_caller_id_name = profile.caller_id_name
            profile.orig_caller_id_number = profile.caller_id_number
        if not profile.ani:
            profile.ani = profile.caller_id_number
        privacy = variables.get("origination_privacy")
        if privacy is not None:
            profile.screen = "screen" in privacy
            profile.hide_name = "hide_name" in privacy
            profile.hide_number = "hide_number" in privacy
        profile.callee_id_name = variables.get("origination_callee_id_name", "Outbound Call")
        profile.callee_id_number = variables.get("origination_callee_id_number", _number_of(data))
        times = profile.times
        for what in vars(times):
            setattr(times, what, 0)
        profile.touch()
        return profile

    def _bond(self, leg: Channel) -> None:
        """The marks that the core leaves on both legs as soon as the new one is made."""
        caller = self.caller
        if caller is None:
            return
        leg.set("max_forwards", str(strings.number(caller.get("max_forwards"), 71) - 1))
        if caller.codec:
            name, rate, _ = caller.codec
            leg.set("originator_codec", f"{name}@{rate}h@20i")
        else:
            leg.set("originator_codec", caller.get("ep_codec_string"))
        leg.set("originator", caller.uuid)
        leg.set("signal_bond", caller.uuid)
        caller.set("originate_signal_bond", leg.uuid)
        leg.other = ("originator", _other(caller.profile, "inbound"))

    def _install(self, leg: Channel, local: dict[str, str], kind: str) -> None:
        """The dial string's variables, and the legs' names for each other."""
        caller = self.caller
        if caller is not None:
            leg.set("call_uuid", caller.get("call_uuid") or caller.uuid)
        for name, value in self._vars.items():
            leg.set(name, value)
        for name, value in local.items():
            leg.set(name, value)
        leg.originating = True
        if leg.get("origination_callee_id_name"):
            leg.profile.callee_id_name = leg.get("origination_callee_id_name") or ""
        if caller is not None:
            leg.set("originating_leg_uuid", caller.uuid)
            callee = leg.profile
            caller.push("originated_legs", f"{leg.uuid};{callee.callee_id_name};{callee.callee_id_number}")
        leg.set("originate_endpoint", kind)
        leg.execute_on("execute_on_originate")

    def _user(
        self,
        data: str,
        variables: dict[str, str],
        local: dict[str, str],
        profile: CallerProfile,
        forked: bool,
        timeout: int,
    ) -> tuple[Channel | None, str]:
        """``user/NUMBER@domain``: an attempt of its own on all the user's contacts."""
        user, _, domain = data.partition("@")
        domain = domain or self.switch.domain
        if not self.switch.directory_has(user):
            return None, "SUBSCRIBER_ABSENT"
        if self.caller is not None:
            self.caller.set("dialed_user", user)
            self.caller.set("dialed_domain", domain)
        inner = {
            **variables,
            "dialed_user": user,
            "dialed_domain": domain,
            "sip_invite_domain": domain,
            "presence_id": f"{user}@{domain}",
        }
        attempt = Attempt(
            self.switch,
            self.caller,
            self.switch.contact_string(user),
            strings.number(variables.get("leg_timeout")) or timeout,
            inner,
            profile,
            no_block=forked,
            depth=self.depth + 1,
            made=self.made,
        )
        outcome = attempt.run()
        leg = outcome.leg
        if leg is None:
            return None, outcome.cause
        for name, value in self.switch.user_variables(user):
            leg.set(name, value)
        self._bond(leg)
        leg.fire("CHANNEL_OUTGOING")
        self._install(leg, local, "user")
        if forked:
            # Only now: a ``user/`` in a fork is made by the inner attempt and rung by the outer.
            self.switch.start_leg(leg)
        return leg, "SUCCESS"


def _other(profile: CallerProfile, logical: str) -> CallerProfile:
    clone = profile.clone()
    clone.profile_index = ""
    clone.logical_direction = logical
    return clone


def _number_of(data: str) -> str:
    """What the callee's number looks like: the last part of the address."""
    user = data.split("@", maxsplit=1)[0].split(";", maxsplit=1)[0]
    user = user.rsplit("/", 1)[-1]
    return user.removeprefix("sip:")


def _split(text: str, delimiter: str) -> list[str]:
    """Alternatives or legs; a delimiter inside ``[…]`` belongs to the variables."""
    parts: list[str] = []
    start = depth = 0
    quoted = False
    for index, char in enumerate(text):
        if char == "[":
            depth += 1
        elif char == "]" and depth:
            depth -= 1
        elif char == "'" and not depth:
            quoted = not quoted and "'" in text[index + 1 :]
        elif char == delimiter and not depth and not quoted:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip(" ")]


def bridge(caller: Channel, leg: Channel) -> None:
    """Join two legs until one of them goes, in the caller's greenlet."""
    switch = caller.switch
    caller.bridge_originator, leg.bridge_originator = True, False
    if leg.answered and not caller.answered:
        caller.answer()
    if not caller.ready:
        leg.hangup(caller.hangup_cause or "ORIGINATOR_CANCEL")
        return
    leg.originating = False
    leg.set("call_uuid", caller.uuid)
    now = int(time.time() * 1_000_000)
    caller.profile.stamp("bridged", now)
    leg.profile.stamp("bridged", now)
    marks = [("Bridge-A-Unique-ID", caller.uuid), ("Bridge-B-Unique-ID", leg.uuid)]
    caller.fire("CHANNEL_BRIDGE", marks)
    caller.set("bridge_to", leg.uuid)
    leg.set("bridge_to", caller.uuid)
    caller.set("last_bridge_to", leg.uuid)
    leg.set("last_bridge_to", caller.uuid)
    caller.set("bridge_channel", leg.name)
    caller.set("bridge_uuid", leg.uuid)
    caller.set("signal_bond", leg.uuid)
    leg.set("bridge_channel", caller.name)
    leg.set("bridge_uuid", caller.uuid)
    leg.set("signal_bond", caller.uuid)
    if not leg.down:
        leg.enter(State.EXCHANGE_MEDIA)
    caller.partner, leg.partner = leg, caller
    outer, leg.watcher = leg.watcher, caller.sleeper
    switch.shape_changed(caller, leg)
    caller.execute_on("execute_on_bridge")
    try:
        _exchange(caller, leg)
    finally:
        leg.watcher = outer
        caller.bridge_originator = False
        caller.partner = leg.partner = None
        switch.shape_changed(caller, leg)
    _unbridge(caller, leg, marks)


def _exchange(caller: Channel, leg: Channel) -> None:
    # An unanswered caller is given up after bridge_answer_timeout, in whole seconds.
    seconds = strings.number(caller.get("bridge_answer_timeout"))
    limit = int(time.time()) + seconds + 1 if seconds else None
    shown = False
    while caller.ready and not leg.down and leg.state == State.EXCHANGE_MEDIA:
        if leg.answered and not caller.answered:
            caller.answer()
        if not shown and leg.answered and caller.answered:
            # Each party's display is told whom it talks to.
            shown = True
            leg.set("last_sent_callee_id_name", leg.profile.caller_id_name)
            leg.set("last_sent_callee_id_number", leg.profile.caller_id_number)
            caller.set("last_sent_callee_id_name", leg.profile.callee_id_name)
            caller.set("last_sent_callee_id_number", leg.profile.callee_id_number)
        for near, far in ((caller, leg), (leg, caller)):
            while near.digits:
                dtmf = near.dequeue_digit()
                if dtmf is not None:
                    far.endpoint.digit(dtmf.digit)
        deadline = None
        if limit is not None and not (caller.answered and leg.answered):
            left = limit - time.time()
            if left <= 0:
                if caller.true("continue_on_answer_timeout"):
                    return
                caller.hangup("ALLOTTED_TIMEOUT")
                return
            deadline = time.monotonic() + left
        caller.drain_events()
        leg.drain_events()
        caller.idle(deadline)


def _unbridge(caller: Channel, leg: Channel, marks: list[tuple[str, str]]) -> None:
    caller.set("bridge_to", None)
    leg.set("bridge_to", None)
    if leg.state == State.EXCHANGE_MEDIA:
        _release(leg)
    if caller.down:
        leg.set("bridge_hangup_cause", caller.hangup_cause)
    if leg.down:
        caller.set("bridge_hangup_cause", leg.hangup_cause)
    leg.set("call_uuid", leg.uuid)
    caller.fire("CHANNEL_UNBRIDGE", marks)
    cause = leg.hangup_cause or "NORMAL_CLEARING"
    if caller.down or caller.transferring:
        return
    if not leg.answered:
        handle_cause(caller, cause)
    hangup_after = caller.get("hangup_after_bridge")
    if (hangup_after or "").lower() == "explicit":
        caller.hangup(cause)
    if (leg.answered or leg.early_media) and not caller.down:
        if leg.answered and caller.true("park_after_bridge"):
            caller.move(State.PARK)
        elif leg.answered and (where := caller.get("transfer_after_bridge")):
            caller.set("transfer_after_bridge", None)
            parts = ([*where.split(":"), "", ""])[:3]
            caller.transfer(*parts)
        elif leg.answered and strings.true(hangup_after):
            caller.hangup(cause)


def _release(leg: Channel) -> None:
    """The other party of a bridge that ended: parked, transferred, or hung up."""
    if leg.true("park_after_bridge"):
        leg.move(State.PARK)
    elif where := leg.get("transfer_after_bridge"):
        leg.set("transfer_after_bridge", None)
        parts = ([*where.split(":"), "", ""])[:3]
        leg.transfer(*parts)
    else:
        leg.hangup()


def handle_cause(channel: Channel, cause: str) -> None:
    """A dial that failed: go on, or hang up with its cause."""
    if channel.down:
        return
    if cause != "ATTENDED_TRANSFER":
        keys = (cause.lower(), str(causes.NUMBERS.get(cause, 0)))
        proceed = channel.get("continue_on_fail")
        failures = channel.get("failure_causes")
        if proceed or failures:
            if failures and not any(part.strip().lower() in keys for part in failures.split(",")):
                return
            if proceed and (strings.true(proceed) or any(part.strip().lower() in keys for part in proceed.split(","))):
                return
        elif cause in ("NO_ANSWER", "NO_USER_RESPONSE", "ORIGINATOR_CANCEL"):
            # No answer is always a reason to go on.
            return
    channel.hangup(cause)
