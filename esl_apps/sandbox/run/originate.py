"""Place calls: turn a dial string into legs, and wait for one that answers, or for a cause."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import gevent

from esl_apps.sandbox.leg import media
from esl_apps.sandbox.leg.channel import Channel, Switchboard
from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.run.dial_string import split
from esl_apps.sandbox.run.profiles import new_profile, other_leg
from esl_apps.sandbox.run.sleeper import Sleeper
from esl_apps.sandbox.wire import causes, strings

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
"""The caller's variables that apply to the legs it dials, unless the dial string sets them."""

DIAL_STATUS = {
    "ORIGINATOR_CANCEL": "CANCEL",
    "USER_BUSY": "BUSY",
    "NO_ANSWER": "NOANSWER",
    "DESTINATION_OUT_OF_ORDER": "INVALIDARGS",
    "INVALID_PROFILE": "INVALIDARGS",
    "CALL_REJECTED": "DONTCALL",
}
DEFAULT_TIMEOUT = 60
#: Separates the dial strings of an enterprise originate.
TOGETHER = ":_:"
#: Seconds between two checks of its attempts, as in FreeSWITCH's own loop.
_LOOK = 0.02


@dataclass
class Outcome:
    """The result of an attempt: the leg that answered (or has early media), or the cause of the failure."""

    cause: str
    leg: Channel | None = None


@dataclass
class Attempt:
    """The dialling of one dial string."""

    switch: Switchboard
    caller: Channel | None
    dial_string: str
    timeout: int = 0
    variables: dict[str, str] | None = None
    """The outer attempt's variables, if this one is nested (``user/`` inside another)."""
    profile: CallerProfile | None = None
    no_block: bool = False
    """Ring only the first contact, and don't wait: for a ``user/`` in a fork."""
    depth: int = 0
    made: list[Channel] = field(default_factory=list)
    """All legs that were created, including nested attempts'."""
    cancelled: list[str] = field(default_factory=list)
    """The cause of legs that are created after the outer attempt is over, of which they are a part."""
    _vars: dict[str, str] = field(default_factory=dict)
    _legs: list[Channel] = field(default_factory=list)

    def run(self) -> Outcome:
        """Dial, wait, and return the outcome."""
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
                bracketed, data = parsed
                variables.update(bracketed)
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
        alternatives = split(data, "|")
        if self.no_block:
            alternatives = alternatives[:1]
        for alternative in alternatives:
            outcome = self._alternative(alternative, timeout or DEFAULT_TIMEOUT, len(alternatives) > 1)
            if outcome.leg is not None or (caller is not None and not caller.ready):
                break
        return outcome

    def _enterprise(self) -> Outcome:
        """Ring several dial strings at once, each an attempt of its own (enterprise originate)."""
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
                cancelled=self.cancelled,
            )
            for part in self.dial_string.split(TOGETHER)
        ]
        tries = [gevent.spawn(attempt.run) for attempt in attempts]

        def winner() -> Channel | None:
            legs = [attempt.value.leg for attempt in tries if attempt.ready() and attempt.value is not None]
            return next((leg for leg in legs if leg is not None and not leg.down), None)

        tones, sounding = self._ringback(), False
        sleeper = caller.sleeper if caller is not None else Sleeper(self.switch.tick)
        while winner() is None and not all(attempt.ready() for attempt in tries):
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
        self.cancelled.append("ORIGINATOR_CANCEL" if cancelled else "LOSE_RACE")
        for leg in self.made:
            if leg is not joined and not leg.down:
                leg.hangup(self.cancelled[0])
        self._legs = [joined] if joined is not None else []
        if joined is None:
            failed = [attempt.value.cause for attempt in tries if attempt.value is not None]
            return self._done("ORIGINATOR_CANCEL" if cancelled else next(reversed(failed), "NORMAL_UNSPECIFIED"))
        if caller is not None:
            self._bond(joined)
            joined.set("call_uuid", caller.get("call_uuid") or caller.uuid)
            self._join(joined, caller)
        return self._done("SUCCESS", joined)

    def _export(self, caller: Channel, variables: dict[str, str]) -> None:
        """Copy the caller's variables that ``export_vars`` lists."""
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
        parts = split(text, ",")
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
        answered, verdict = self._ring(sleeper, early_ok, timeout)
        for leg in self._legs:
            leg.watcher = None
        return self._decide(answered, verdict, reason)

    def _ring(self, sleeper: Sleeper, early_ok: bool, timeout: int) -> tuple[Channel | None, str]:
        """Wait for a leg to answer. Return it, or why the wait ended (``cancel``, ``timeout``)."""
        caller = self.caller
        # In whole seconds of the clock, so up to one second early.
        deadline = int(time.time()) + timeout
        instant = strings.true(self._vars.get("instant_ringback"))
        tones = self._ringback()
        sounding = False
        try:
            while True:
                if caller is not None and not caller.ready:
                    return None, "cancel"
                answered = self._winner(early_ok)
                if answered is not None:
                    return answered, ""
                live = [leg for leg in self._legs if not leg.down and leg.originating]
                if not live:
                    return None, ""
                if strings.true(self._vars.get("fail_on_single_reject")) and len(live) < len(self._legs):
                    return None, "timeout"
                now = time.time()
                if now >= deadline:
                    return None, "timeout"
                ringing = any(leg.ring_ready or leg.early_media for leg in live)
                if caller is not None and not tones and self._tells_ringing(live):
                    if len(self._legs) == 1:
                        self._pass_callee_id(live[0], caller)
                    caller.ring()
                if caller is not None and tones and not sounding and (ringing or instant):
                    # Ringback needs media; with ``ringback``, the caller gets early media for it.
                    if not caller.media_ready:
                        caller.pre_answer()
                    caller.heard.append(lambda: tones)
                    sounding = True
                self._wait(sleeper, min(deadline - now, self._next_timeout(live)))
        finally:
            if sounding and caller is not None:
                caller.heard.pop()

    def _tells_ringing(self, live: list[Channel]) -> bool:
        """Whether to tell the caller that a callee rings."""
        return not strings.true(self._vars.get("ignore_ring_ready")) and any(leg.ring_ready for leg in live)

    def _wait(self, sleeper: Sleeper, seconds: float) -> None:
        if self.caller is not None:
            # Commands for the caller run meanwhile; the next round sees what they changed.
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
        """Hang up legs past their own time-outs; return the seconds until the next one."""
        soonest = 3600.0
        for leg in live:
            quiet = not (leg.ring_ready or leg.early_media or leg.answered)
            if quiet and (seconds := strings.number(leg.get("leg_progress_timeout"))):
                # In whole seconds of the clock, so up to one second late.
                left = leg.profile.times.created // 1_000_000 + seconds + 1 - time.time()
                if left <= 0:
                    leg.hangup("PROGRESS_TIMEOUT")
                    left = 0.01
                soonest = min(soonest, left)
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
                self._join(winner, caller)
            return self._done("SUCCESS", winner)
        if verdict == "cancel":
            return self._done("ORIGINATOR_CANCEL")
        if verdict == "timeout":
            return self._done("NO_ANSWER")
        for leg in self._legs:
            if leg.hangup_cause:
                return self._done(leg.hangup_cause)
        return self._done(reason or "ORIGINATOR_CANCEL")

    def _join(self, leg: Channel, caller: Channel) -> None:
        """Bring the caller as far as the leg that won."""
        self._pass_callee_id(leg, caller)
        if leg.answered:
            caller.answer()
        elif leg.early_media:
            caller.pre_answer()

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
        caller.other = ("originatee", other_leg(leg.profile, "inbound"))
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
        profile = new_profile(self.profile, self.caller, variables, data)
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
        if self.cancelled:
            leg.hangup(self.cancelled[0])
        return leg, "SUCCESS"

    def _bond(self, leg: Channel) -> None:
        """Set the variables that FreeSWITCH sets on both legs when the new one is created."""
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
        leg.other = ("originator", other_leg(caller.profile, "inbound"))

    def _install(self, leg: Channel, local: dict[str, str], kind: str) -> None:
        """Set the dial string's variables, and each leg's reference to the other."""
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
        """Dial ``user/NUMBER@domain``: an attempt of its own on all the user's contacts."""
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
            cancelled=self.cancelled,
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
            # In a fork, the inner attempt creates a ``user/`` leg and the outer one rings it.
            self.switch.start_leg(leg)
        return leg, "SUCCESS"
