"""A session in which one caller dials one number after another: DISA, dialthrough, callback and autodial.

Each attempt to connect two parties has a record. A session that dials nothing has one as well, without a number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn

from esl_apps.apps.context import AppPolicy, Arrival, Host
from esl_apps.apps.ending import conclude, end_failed, failure_prompt
from esl_apps.apps.legs import LONGEST, Bleg, aleg_variables, join
from esl_apps.apps.permission import denial
from esl_apps.apps.settings import Entrance, Rules, Settings
from esl_apps.core import causes, identity, node_clock, numbers, parties, terms
from esl_apps.core.attempt import Attempt
from esl_apps.core.billing import next_attempt, note_legs
from esl_apps.core.call import Bridged, Call, CallEnded, Complete, Leg
from esl_apps.core.cards import Account, Card
from esl_apps.core.charges import Charge
from esl_apps.core.limits import Level, Limits, Refusal
from esl_apps.core.numbers import Number
from esl_apps.core.pins import LOCKED, OPEN, Source
from esl_apps.core.restrictions import ClassRule
from esl_apps.core.talk import hold_time
from esl_apps.core.unavailable import StoreUnavailable

#: Seconds by which A's hang-up may be reported after the end of the talk.
_BEHIND = 0.3


class SessionRefused(Exception):
    """End the session with a prompt and a rejected record."""

    def __init__(
        self, prompt: str, code: int = causes.CALL_REJECTED, *, note: str = "", cause: str = "NORMAL_CLEARING"
    ) -> None:
        """``prompt``: empty for a caller who was not answered, who gets ``cause`` instead (FreeSWITCH's name)."""
        super().__init__(note or prompt)
        self.prompt = prompt
        self.code = code
        self.cause = cause


@dataclass
class Session:
    """One caller's session, from the first prompt to the hang-up."""

    call: Call
    app: str
    policy: AppPolicy
    host: Host
    attempt: Attempt
    """The current attempt, or the last one if it has ended."""
    rules: Rules
    longest: float
    """Seconds that it may last in all."""
    account: Account | None = None
    card: Card | None = None
    card_limits: Limits | None = None
    caller: str | None = None
    """The caller's number; None if it is withheld."""
    caller_name: str = ""
    """The name that came with it."""
    source: Source | None = None
    """The counters of wrong PINs, if a PIN is asked for."""
    dnis: str = ""
    """The number that the caller dialled, as E.164 digits; empty if a node rang them, or if it can't be read."""
    dialled: bool = False
    """A number was dialled."""
    unconfirmed: bool = False
    """The caller has to press a key first, and hasn't."""
    _last: tuple[Bridged, float] | None = None
    """The outcome of its last call and when it was known, if the record waits for the end of A's leg."""
    _started: float = field(default_factory=time.monotonic)
    _held: str | None = None
    _aleg: Charge | None = None

    @classmethod
    def open(
        cls, call: Call, app: str, arrival: Arrival, policy: AppPolicy, host: Host, entrance: Entrance | None = None
    ) -> Session:
        """Open a session for an unanswered call from the dialplan. :raises StoreUnavailable: Redis is down."""
        account = entrance.account if entrance is not None else None
        caller = policy.caller(call)
        # Redis may be asked for these: nothing has begun if it is down.
        rules = policy.rules
        source = policy.source(call, "/".join(arrival.path) if entrance is not None else app, caller)
        attempt = _first_attempt(call, app, arrival, policy, account, caller)
        attempt.stranger = entrance is not None and entrance.pin_hash is not None
        host.begin(attempt)
        dialled = policy.settings.plan.find(call.header("Caller-Destination-Number"))
        return cls(
            call,
            app,
            policy,
            host,
            attempt,
            rules,
            entrance.max_session if entrance is not None else rules.max_session,
            account,
            caller=caller,
            caller_name=identity.name_of(call) if caller is not None else "",
            source=source,
            dnis=dialled.subscriber if dialled is not None else "",
        )

    @classmethod
    def of_answered(
        cls, call: Call, attempt: Attempt, policy: AppPolicy, host: Host, account: Account, card: Card | None = None
    ) -> Session:
        """Open a session for an answered leg that a node rang. Its charge goes on until the session ends."""
        rules = policy.rules
        session = cls(call, attempt.app, policy, host, attempt, rules, rules.max_session, account, card)
        session._aleg = next((charge for charge in attempt.charges if charge.began_as_aleg), None)
        if session._aleg is not None:
            session._aleg.outlive(attempt.switch, call.uuid)
        attempt.aleg_uuid = call.uuid
        attempt.placed, attempt.closes = True, False
        return session

    @property
    def settings(self) -> Settings:
        return self.policy.settings

    @property
    def user(self) -> str:
        return (self.card.user_id if self.card else None) or ""

    @property
    def left(self) -> float:
        """Seconds remaining."""
        return max(0.0, self._ends - time.monotonic())

    @property
    def _ends(self) -> float:
        ends = self._started + self.longest
        # A first leg that was rung may have a longest_call of its own.
        left = None if self._aleg is None else self._aleg.left
        return ends if left is None else min(ends, time.monotonic() + left)

    # Life ---------------------------------------------------------------------------------------------

    def ask_for_room(self, prompt: str = "") -> None:
        """Ask whether the account may have this call among its live ones. ``prompt``: empty before the answer.

        :raises SessionRefused: it has as many as allowed on this node.
        """
        if not self.host.room(self.attempt):
            cause = "NORMAL_CLEARING" if prompt else "USER_BUSY"
            raise SessionRefused(prompt, causes.USER_BUSY, note="over max_calls of the account", cause=cause)

    def answer(self) -> None:
        """Answer the call with the session's variables, and note when that was."""
        self.call.answer(session_variables(self.settings, self.attempt, self.user))
        self.attempt.enter(terms.AGENT_ANSWERED, self.call.answered_at or node_clock.now())

    def run(self, talk: Callable[[], None]) -> None:
        """Run a flow to its end. This is the one place that catches the caller's hang-up.

        The record says ``abandoned`` if nothing was dialled. A flow that connects the caller with something else, such
        as a prompt or a conference, enters ``terms.BRIDGED`` at that moment: then it says ``answered``.
        """
        try:
            rejected = self._talk(talk)
            # A call whose socket was lost goes on until then.
            end = self.call.ended()
            self.release(ago=node_clock.now() - end.at)
        finally:
            self.release()
        if self.attempt.ended:
            return
        self.attempt.closes = end.lost or end.aleg.ended_at is not None
        if self.attempt.number is None:
            # The last B-leg is that of the attempt before.
            end = replace(end, bleg=None)
        if self._last is not None:
            self._conclude(*self._last, end.aleg)
        elif rejected is not None and not self.unconfirmed:
            note_legs(self.attempt, end.aleg, None)
            self.attempt.end(terms.REJECTED, rejected, terms.SYSTEM, end.at)
        else:
            self.attempt.hold_time = hold_time(self.attempt, end.at)
            conclude(self.attempt, end, None, terms.CALLEE, unconfirmed=self.unconfirmed)

    def _talk(self, talk: Callable[[], None]) -> int | None:
        """Run a flow until A hangs up or is lost. Return the Q.850 cause if the session is refused."""
        rejected: int | None = None
        cause, prompt = "NORMAL_CLEARING", ""
        try:
            try:
                talk()
            except SessionRefused as refused:
                rejected, cause, prompt = refused.code, refused.cause, refused.prompt
                self.attempt.note("refused", str(refused))
            except StoreUnavailable as error:
                rejected, prompt = causes.CALL_REJECTED, "unavailable"
                self.attempt.note("unavailable", str(error))
            if prompt:
                self.call.drop_keys(0.0, 0.0)  # keys that wait would skip it
                self.call.play(prompt)
            self.call.hangup(cause)
        except CallEnded as ended:
            self.attempt.note("aleg_ended", str(ended))
        return rejected

    def renew(self, keyed: str = "") -> None:
        """Take up the policy in force. Call it when a number was ``keyed``, before it is read and checked: a session
        may last an hour, and a reload holds for it, too.

        :raises StoreUnavailable: Redis is down, and these rules have not been read before. An emergency number is
            dialled by the policy before, then.
        """
        policy = self.host.policy() if self.host.policy is not None else self.policy
        try:
            self.rules = policy.rules
        except StoreUnavailable:
            if self.is_emergency(keyed):
                return
            raise
        self.policy = policy

    def is_emergency(self, text: str) -> bool:
        """Return whether a text is an emergency number."""
        number = self.settings.plan.find(text)
        return number is not None and number.is_emergency

    def note_owner(self) -> None:
        """Have the attempt's record name the card and the account as they are now."""
        if self.account is not None:
            self.attempt.account_id, self.attempt.integrator = self.account.id, self.account.integrator
        if self.card is not None:
            self.attempt.card_id, self.attempt.user_id = self.card.id, self.card.user_id

    def hold_place(self, card: Card) -> None:
        """Count this call against the card's holder.

        :raises SessionRefused: the holder has as many as allowed. :raises StoreUnavailable: Redis is down.
        """
        self.card = card
        if not self.host.usage.enter(card.holder, card.max_concurrent_calls_per_user, self.attempt.session_ref):
            raise SessionRefused("too_many_channels", causes.USER_BUSY, note="over max_concurrent_calls_per_user")
        before, self._held = self._held, card.holder
        if before is not None and before != card.holder:
            self.host.usage.leave(before, self.attempt.session_ref)
        self.attempt.holder = card.holder
        self.attempt.save()

    def keep_place(self, card: Card, number: Number) -> None:
        """Go on with the card as it is now. Redis is only asked if it has another holder.

        :raises SessionRefused, StoreUnavailable: as :meth:`hold_place`.
        """
        self.card = card
        if card.holder != self._held or card.max_concurrent_calls_per_user == 0:
            self._name(number)
            self.hold_place(card)
            self.call.set({"esl_user_id": self.user})

    def release(self, *, ago: float = 0.0) -> None:
        if self.attempt.followed and not self.attempt.ended:
            return  # The call goes on without this flow: its end gives them up.
        if self._held is not None:
            self.host.usage.leave(self._held, self.attempt.session_ref)
            self._held = None
        # A transfer takes the first leg's charge along with its leg.
        if self._aleg is not None and self._aleg.call_ref == self.attempt.call_ref:
            self._aleg.end(ago=ago)

    # Asking -------------------------------------------------------------------------------------------

    def collect(self, audio: str, most: int, first: float, between: float) -> str:
        """As ``Call.collect``. :raises SessionRefused: the session's time is up."""
        return self.in_time(self.call.collect(audio, most, first, between, self.left))

    def collect_pin(self, audio: str, most: int, first: float, between: float, complete: Complete = None) -> str:
        """As ``Call.collect_pin``. :raises SessionRefused: the session's time is up."""
        return self.in_time(self.call.collect_pin(audio, most, first, between, self.left, complete=complete))

    def admits(self, typed: str, right: bool, card_id: str = "", *, whole: bool = True) -> bool:
        """Return whether a typed PIN opens. A wrong one counts if it is ``whole``: no more digits may follow. A lock
        shows in ``esl-apps trace`` only.

        :raises StoreUnavailable: Redis is down.
        """
        assert self.source is not None
        # Hash it even if there is a card, so that every answer takes as long.
        hashed = self.policy.hash_pin(typed)[:16]
        guessed = whole and bool(typed)
        verdict = self.policy.guard.judge(self.source, right, card_id, guessed=guessed, pin_id=card_id or hashed)
        if verdict == LOCKED and whole:
            self.attempt.note("pin_locked")
        return verdict == OPEN

    def in_time(self, keyed: str = "") -> str:
        """Return what was ``keyed``. :raises SessionRefused: time is up, unless it is an emergency number."""
        if self.left <= 0 and not self.is_emergency(keyed):
            raise SessionRefused("time_is_up", causes.USER_BUSY, note="max_session or longest_call is used up")
        return keyed

    # Dialling -----------------------------------------------------------------------------------------

    def check(self, number: Number, *levels: Mapping[str, ClassRule]) -> None:
        """Check a number.

        :raises SessionRefused: it is an emergency number, of a denied class, one of this installation's own, or without
            a dial string.
        """
        refusal = denial(number, self.settings, self.rules, *levels)
        if refusal is not None:
            self.refuse(number, refusal.note, refusal.prompt)
        if number.subscriber == self.dnis:
            self.refuse(number, "the number that the caller dialled")

    def refuse(self, number: Number, note: str, prompt: str = "unauthorized_call") -> NoReturn:
        """:raises SessionRefused: with a record that says which number it was."""
        self._name(number)
        raise SessionRefused(prompt, causes.BEARER_NOT_AUTHORIZED, note=note)

    def dial(
        self,
        number: Number,
        caller_id: str,
        extra: Mapping[str, str] | None = None,
        *,
        last: bool = False,
        name: str = "",
    ) -> Bridged:
        """Join the caller with a number that has passed its checks. ``last``: the session ends with this call, which
        has all of A's leg in its record then. ``name``: what the callee is shown with ``caller_id``.

        :raises SessionRefused: what may be spent is spent, before it is dialled or while they talk.
        """
        self._name(number)
        attempt = self.attempt
        attempt.dial_number = caller_id
        is_emergency = attempt.is_emergency
        if not is_emergency:
            self.in_time()
        longest = self._pay(number)
        self.dialled = True
        if self._aleg is not None:
            attempt.confirm(self._aleg)
            self._aleg.spared = is_emergency
        bleg = Bleg(
            caller_id=caller_id,
            name=name,
            timeout=min(self.rules.callee_timeout, LONGEST if is_emergency else self.left),
            longest=LONGEST if is_emergency else longest,
            # The time for which B rings is the session's, too.
            until=None if is_emergency else self._ends,
            user=self.user,
            variables=extra or {},
        )
        bridged = join(self.call, attempt, self.settings, bleg, self.settings.endpoints.of(number, as_asked=False))
        if self._aleg is not None:
            self._aleg.spared = False
        hung_up = bridged.bleg is not None and bridged.bleg.hung_up_itself
        if attempt.cut is None and bridged.answered and not bridged.broken and not hung_up:
            # B did not hang up, so A may have. Its hang-up may be reported after B's.
            self.call.wait_for_hangup(_BEHIND)
        if last and attempt.cut is None:
            self._last = bridged, node_clock.now()
            return bridged
        self._conclude(bridged, node_clock.now())
        if (attempt.integrator or "") in self.settings.session_records:
            # Another process must be able to close the session if this one dies before the next number.
            self._go_on()
        if attempt.cut is not None:
            raise _spent(attempt.cut)
        return bridged

    def _pay(self, number: Number) -> float:
        """Begin to pay for B; how long the two may talk. :raises SessionRefused: as ``dial``."""
        if number.is_emergency:
            # No bill is worth one of these, nor is the session's time.
            return LONGEST
        levels = self.levels
        charge = Charge(self.attempt.call_ref, levels, number, owner=self._aleg is None, whole=False)
        aleg = self._aleg_again(levels)
        refusal = self.host.usage.begin(charge) if aleg is None else self.host.usage.begin(aleg, charge)
        if refusal is not None:
            raise _spent(refusal)
        if aleg is not None:
            self._repay_aleg(aleg)
        self.attempt.pay(charge)
        return self.left if charge.longest is None else min(self.left, charge.longest)

    def _aleg_again(self, levels: list[Level]) -> Charge | None:
        """Return another charge for the first leg if its limits have changed: it pays the minutes of both legs."""
        if self._aleg is None:
            return None
        again = Charge(self.attempt.call_ref, levels, self._aleg.number, aleg=True)
        return None if again.has_limits_of(self._aleg) else again

    def _repay_aleg(self, aleg: Charge) -> None:
        assert self._aleg is not None
        # The call is counted already, and goes on being.
        self.attempt.confirm(self._aleg)
        aleg.outlive(self._aleg.switch, self.call.uuid)
        self.attempt.drop(self._aleg)
        aleg.follow(self._aleg)
        self._aleg.end()
        self.attempt.pay(aleg)
        aleg.talk()
        self._aleg = aleg

    def tell(self, bridged: Bridged) -> None:
        """Say why the number was not reached: another prompt for each kind of cause."""
        if not (bridged.answered or bridged.broken):
            self.call.play(failure_prompt(bridged))

    def _name(self, number: Number) -> None:
        """Use the current attempt for this number, or a new one if it has ended."""
        if self.attempt.ended:
            self._go_on()
        self.note_owner()
        self.attempt.follows = False
        self.attempt.number = parties.shown(number)
        self.attempt.set(parties.second(number))
        self.attempt.call_dir = numbers.direction(self.settings.plan.find(self.caller), number)

    def _go_on(self) -> None:
        """Begin the session's next attempt."""
        self.attempt = next_attempt(self.attempt)
        if self._aleg is not None:
            self.attempt.pay(self._aleg)
        self.host.begin(self.attempt)
        self.attempt.enter(terms.AGENT_ANSWERED, node_clock.now())
        self.call.set({"esl_call_ref": self.attempt.call_ref})

    @property
    def levels(self) -> list[Level]:
        """The payers of its calls."""
        levels = [self.rules.system]
        if self.account is not None:
            levels.append(account_level(self.account))
        if self.card is not None:
            levels.append(Level(f"card:{self.card.id}", self.card_limits))
        return levels

    def _conclude(self, bridged: Bridged, now: float, aleg: Leg | None = None) -> None:
        """End this attempt. ``aleg``: the A-leg if it has ended, too."""
        attempt = self.attempt
        bleg = bridged.bleg
        at = (bleg.ended_at if bleg is not None and bridged.answered else None) or now
        attempt.hold_time = hold_time(attempt, at)
        note_legs(attempt, aleg or Leg(self.call.uuid, answered_at=attempt.session_answered_at, ended_at=at), bleg)
        if bridged.answered:
            by = terms.SYSTEM
            if bridged.broken:
                by = terms.AGENT
            elif bleg is not None and bleg.hung_up_itself:
                by = terms.CALLEE
            attempt.end(terms.ANSWERED, bridged.code, by, at)
        elif attempt.cut is not None:
            attempt.end(terms.REJECTED, attempt.cut.code, terms.SYSTEM, now)
        elif bridged.broken:
            attempt.end(terms.ABANDONED, causes.NORMAL_CLEARING, terms.AGENT, now)
        else:
            end_failed(attempt, bridged, terms.CALLEE, now)


def _first_attempt(
    call: Call, app: str, arrival: Arrival, policy: AppPolicy, account: Account | None, caller: str | None
) -> Attempt:
    attempt = Attempt(
        app=app,
        integrator=account.integrator if account else None,
        account_id=account.id if account else None,
        extension=caller,
        **parties.first(parties.caller(policy.settings.plan.find(caller))),
        claimed=True,
        call_dir="external",
        session_ref=arrival.session_ref,
        closes=False,
        language=policy.language(call.header("Caller-Destination-Number") or "", account),
    )
    attempt.aleg_uuid = call.uuid
    # If the session goes on after its socket or node was lost, the attempt begins now, not at the INVITE.
    attempt.dialled(node_clock.now() if arrival.session_ref else call.created_at)
    return attempt


def account_level(account: Account) -> Level:
    return Level(f"account:{account.id}", account.limits, account.breaker)


def _spent(refusal: Refusal) -> SessionRefused:
    return SessionRefused("limit_reached", refusal.code, note=str(refusal))


def session_variables(settings: Settings, attempt: Attempt, user: str) -> dict[str, str]:
    """Return the A-leg's variables. In a session it outlives its B-legs."""
    return {**aleg_variables(settings, attempt, user), "hangup_after_bridge": "false"}
