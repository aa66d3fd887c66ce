"""The comparison of the legs that the switches saw with the records that came out of Redis.

All results depend only on the two accounts, so that tests can forge them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.load import CALLBACK, Asked
from tests.chaos.witness import Leg, by_uuid

MISSING, DOUBLED, WRONG, LEFT_OVER = "missing", "doubled", "wrong outcome", "left-over limits"
MINUTES = "minutes counted wrong"

#: Seconds by which a time in a record may differ from the switch's.
TOLERANCE = 1.5
#: The same for ``dialed_at``. Calls that a node begins have the node's time; an overloaded switch dials later.
DIALLED_TOLERANCE = 6.0
#: Seconds by which what was counted of one leg's talk may be off: if something died meanwhile, and otherwise.
COUNTED_TOLERANCE, UNDISTURBED_TOLERANCE = 10.0, 1.0
#: Applications whose own first leg is paid for, and not the numbers dialled from it.
_FIRST_LEG_PAYS = frozenset({"callback", "autodial"})
#: Seconds within which two ends count as simultaneous: either may be the first.
AT_ONCE = 0.25

NO_ANSWER = frozenset({18, 19, 102})
#: Causes of a gateway that fails, after which the next one is tried.
GATEWAY_FAILED = frozenset({34, 38, 41, 42, 44})
#: How many gateways there are.
GATEWAYS = 2
#: FreeSWITCH's cause of a leg whose gateway said nothing.
SILENT = "PROGRESS_TIMEOUT"

Record = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """A disagreement between the accounts."""

    kind: str
    app: str
    text: str
    refs: tuple[str, ...] = ()
    uuids: tuple[str, ...] = ()
    at: float = 0.0
    """The time at which the call began."""
    until: float = 0.0


@dataclass
class Accounts:
    legs: list[Leg]
    records: list[Record]
    """Payloads popped from ``enigma:notifications:cdr``."""
    asked: list[Asked]
    missed: dict[str, float] = field(default_factory=dict)
    """E.164 digits → time at which the number rang for a callback."""
    no_callback: Callable[[float], bool] = lambda at: False
    """Whether something happened at that time that excuses a callback that was never scheduled."""
    steps: tuple[float, ...] = (0.0,)
    """Seconds by which a node's clock was set during the run."""
    findings: list[Finding] = field(default_factory=list)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(application, end_reason or the fate of a call that no node took) → count."""

    def __post_init__(self) -> None:
        self.by_uuid = by_uuid(self.legs)
        self.by_ref: dict[str, list[Record]] = defaultdict(list)
        self.by_session: dict[str, list[Record]] = defaultdict(list)
        for record in self.records:
            self.by_ref[record["call_ref"]].append(record)
            self.by_session[record["session_ref"]].append(record)
        self.alegs: dict[str, list[Leg]] = defaultdict(list)
        self.blegs: dict[str, list[Leg]] = defaultdict(list)
        for leg in self.legs:
            if leg.is_b:
                self.blegs[leg.ref or ""].append(leg)
            else:
                for ref in leg.refs:
                    self.alegs[ref].append(leg)
        self.asked_by_ref = {one.call_ref: one for one in self.asked if one.call_ref}

    def compare(self) -> list[Finding]:
        """All disagreements, in the order of time."""
        seen: set[str] = set()
        for ref in self._due():
            seen.add(ref)
            self._one_record(ref)
        self._sessions()
        self._callers()
        self._callbacks()
        self._rung_once()
        for ref, records in self.by_ref.items():
            for record in records:
                self.outcomes[record["ref"], record["end_reason"]] += 1
            if ref not in seen and len(records) > 1:
                self._find(DOUBLED, records[0]["ref"], f"{len(records)} records", [ref])
            if ref not in seen and ref not in self.alegs and any(one["bridged_at"] for one in records):
                self._find(WRONG, records[0]["ref"], "a talk in the records that no switch saw", [ref])
        self.findings.sort(key=lambda finding: finding.at)
        return self.findings

    def _find(self, kind: str, app: str, text: str, refs: Iterable[str] = (), legs: Iterable[Leg] = ()) -> None:
        refs = tuple(refs)
        all_legs = [*legs, *(leg for ref in refs for leg in self.legs_of(ref))]
        begin = min((leg.created for leg in all_legs), default=0.0)
        if not begin:
            begin = next((self.asked_by_ref[ref].at for ref in refs if ref in self.asked_by_ref), 0.0)
        end = max((leg.ended for leg in all_legs), default=begin)
        self.findings.append(Finding(kind, app, text, refs, tuple(leg.uuid for leg in legs), begin, end))

    def legs_of(self, ref: str) -> list[Leg]:
        return [*self.alegs.get(ref, ()), *self.blegs.get(ref, ())]

    # Each attempt --------------------------------------------------------------------------------------

    def _due(self) -> list[str]:
        """The attempts that owe a record: those of accepted requests and those of legs that a node placed. A session's
        next attempt is noted on its leg before a number is dialled, and owes none until then."""
        due = dict.fromkeys(ref for ref in self.blegs if ref)
        due.update(dict.fromkeys(leg.refs[0] for leg in self.legs if leg.refs and not leg.is_b and _placed(leg)))
        due.update(dict.fromkeys(self.asked_by_ref))
        return list(due)

    def _app_of(self, ref: str) -> str:
        legs = self.legs_of(ref)
        return legs[0].app if legs else self.asked_by_ref[ref].app

    def _one_record(self, ref: str) -> None:
        records, app = self.by_ref.get(ref, []), self._app_of(ref)
        if not records:
            self._find(MISSING, app, self._what_happened(ref), [ref])
            return
        if len(records) > 1:
            self._find(DOUBLED, app, f"{len(records)} records", [ref])
        for wrong in self._wrong(ref, records[0]):
            self._find(WRONG, app, wrong, [ref])

    def _what_happened(self, ref: str) -> str:
        talk = self._talk(ref)
        if talk is not None:
            return f"no record of a talk of {talk.ended - (talk.answered or 0):.1f} s"
        if not self.legs_of(ref):
            return "no record, and no leg: accepted over HTTP"
        return f"no record; expected {' or '.join(sorted(self._expected(ref))) or 'any'}"

    def _talk(self, ref: str) -> Leg | None:
        """The B-leg that was answered and joined to its A-leg."""
        return next((leg for leg in self.blegs.get(ref, ()) if leg.answered and leg.bridged), None)

    def _aleg(self, ref: str) -> Leg | None:
        """The leg from which B-legs of this attempt were rung, or the first one rung."""
        for leg in self.blegs.get(ref, ()):
            if leg.other in self.by_uuid:
                return self.by_uuid[leg.other]
        alegs = _by_last_gateway(self.alegs.get(ref, []))
        return next((leg for leg in alegs if leg.answered), alegs[0] if alegs else None)

    def _wrong(self, ref: str, record: Record) -> Iterable[str]:
        if any(leg.killed for leg in self.legs_of(ref)):
            # It ended with its switch, which couldn't report how: ``lost``, or the outcome reported before.
            return
        talk, aleg = self._talk(ref), self._aleg(ref)
        reason = record["end_reason"]
        expected = self._expected(ref)
        if expected and reason not in expected:
            yield f"end_reason {reason} {record['end_code']}, expected {' or '.join(sorted(expected))}"
        asked = self.asked_by_ref.get(ref)
        if talk is not None and aleg is not None and reason == "answered":
            for name, own, theirs in (
                ("bridged_at", record["bridged_at"], talk.answered),
                ("ended_at", record["ended_at"], min(talk.ended, aleg.ended)),
            ):
                if own is None:
                    yield f"{name} is null"
                elif abs(off := self._off(own, theirs or 0.0)) > TOLERANCE:
                    yield f"{name} is {off:+.1f} s off"
            if record["bridged_at"] is not None and len(self.steps) > 1:
                # Whatever the clocks said, the talk is as long as it was.
                talked = record["ended_at"] - record["bridged_at"]
                longer = talked - (min(talk.ended, aleg.ended) - (talk.answered or 0.0))
                if abs(longer) > TOLERANCE:
                    yield f"the talk is {longer:+.1f} s too long"
            by_hand = talk.ended_itself or aleg.ended_itself
            if not by_hand and (asked is None or asked.cancelled_at is None):
                yield "a talk that neither party ended"
            who = record["hung_up_by"]
            if by_hand and talk.ended_itself != aleg.ended_itself and (asked is None or asked.cancelled_at is None):
                first, second = ("callee", "agent") if record["ref"] == "inbound" else ("agent", "callee")
                true = second if talk.ended_itself else first
                if who != true:
                    yield f"hung_up_by {who}, expected {true}"
        began = [leg.created for leg in self.legs_of(ref)]
        # An inbound leg may have had several attempts: only the first began with the leg.
        if began and (aleg is None or len(aleg.refs) == 1):
            off_by = self._off(record["dialed_at"], min(began))
            if abs(off_by) > DIALLED_TOLERANCE:
                yield f"dialed_at is {off_by:+.1f} s off"

    def _off(self, own: float, theirs: float) -> float:
        """Return how far a node's time is from the switch's, by what the node's clock may have been."""
        return min((own - theirs - step for step in self.steps), key=abs)

    def _expected(self, ref: str) -> set[str]:
        """The end reasons that fit what the switch saw; empty if that can't be told."""
        blegs, aleg, asked = _by_last_gateway(self.blegs.get(ref, [])), self._aleg(ref), self.asked_by_ref.get(ref)
        tried = self.blegs.get(ref, [])
        next_due = len(tried) < GATEWAYS and all(_gateway_failed(leg) for leg in tried)
        expected = self._by_switch(blegs, aleg, next_due=next_due)
        if asked is not None and asked.cancelled_at is not None:
            # The order of the two can't be told. If no node said that it cancels, the call may have ended in any way.
            expected |= {"cancelled", "answered"} if expected else {"cancelled"} if asked.cancel_taken else set()
        return expected

    def _by_switch(self, blegs: list[Leg], aleg: Leg | None, *, next_due: bool) -> set[str]:
        """``next_due``: the gateways that were tried failed, and there is another."""
        if aleg is None:
            # No such phone, the switch died before it was asked, or Redis refused to count it.
            return {"agent_failed", "lost", "rejected"}
        inbound = aleg.app == "inbound"
        party = "agent" if inbound else "callee"
        answered = [leg for leg in blegs if leg.answered]
        joined = [leg for leg in answered if leg.bridged]
        if any(min(leg.ended, aleg.ended) - (leg.answered or 0) > AT_ONCE for leg in joined):
            return {"answered"}
        ends: set[str] = set()
        if answered:
            # Answered in the instant in which it ended, or too late to be joined.
            ends |= {"answered", "abandoned", f"{party}_no_answer"}
        if _placed(aleg) and not aleg.answered:
            return {f"agent_{_failure(aleg)}"}
        if not blegs:
            if not aleg.ended_itself:
                # Refused, over a limit, or left without a node: the switch's account doesn't distinguish these.
                return set()
            if any(application == "bridge" for application, _data, _at in aleg.applications):
                # An extension without a phone: no leg is made for it (hazard 22).
                ends.add(f"{party}_failed")
            return ends | {"abandoned", "rejected"}
        last = max(leg.ended for leg in blegs)
        if aleg.ended_itself and (aleg.ended <= last + AT_ONCE or next_due):
            # Or it left while the next gateway was about to be tried.
            ends.add("abandoned")
        refused = [leg for leg in blegs if not leg.answered and _failed_itself(leg)]
        ends |= {f"{party}_{_failure(leg)}" for leg in refused}
        if not answered and any(not _failed_itself(leg) for leg in blegs) and "abandoned" not in ends:
            ends.add(f"{party}_no_answer")
        return ends

    # Sessions -----------------------------------------------------------------------------------------

    def _sessions(self) -> None:
        """Check that each caller of DISA, dialthrough and so on has a record, and one for each number dialled."""
        for leg in self.legs:
            if leg.is_b or not leg.refs:
                continue
            records = [one for ref in leg.refs for one in self.by_ref.get(ref, ())]
            first = leg.refs[0]
            in_session = {one["call_ref"]: one for one in [*records, *self.by_session.get(first, ())]}
            if not in_session:
                if not _placed(leg) and not any(ref in self.blegs for ref in leg.refs):
                    self._find(MISSING, leg.app, "no record of a caller who dialled no number", leg.refs)
                continue
            dialled = [ref for ref in leg.refs if ref in self.blegs]
            without = [ref for ref, one in in_session.items() if one["number"] is None and ref not in self.blegs]
            if dialled and without and leg.app in ("disa", "dialthrough", "callback"):
                self._find(WRONG, leg.app, "a record without a number beside those of the numbers dialled", leg.refs)
            elif len(without) > 1:
                self._find(WRONG, leg.app, f"{len(without)} records of a session that dialled nothing", leg.refs)
            if len({one["session_ref"] for one in records}) > 1:
                self._find(WRONG, leg.app, "several session_refs in one session", leg.refs)

    def _callers(self) -> None:
        """Count callers whom no node took. They owe no record unless they were answered."""
        for leg in self.legs:
            if leg.direction != "inbound" or leg.refs or leg.number == CALLBACK:
                continue
            ran = [app for app, _, _ in leg.applications]
            if leg.killed:
                self.outcomes[leg.app, "(its switch was killed)"] += 1
                continue
            if "pre_answer" in ran:
                self.outcomes[leg.app, "(heard unavailable)"] += 1
            elif leg.ended_itself:
                self.outcomes[leg.app, "(gone before a node took it)"] += 1
            else:
                self.outcomes[leg.app, f"(refused: {leg.cause})"] += 1
            if leg.answered and "pre_answer" not in ran:
                self._find(WRONG, leg.app, "answered, and no reference on it", legs=[leg])

    # Callbacks ----------------------------------------------------------------------------------------

    def _callbacks(self) -> None:
        """Check that each caller refused for a callback is called back, and only once if they answered."""
        refused = {_digits(leg.caller): leg for leg in self.legs if leg.number == CALLBACK}
        placed: dict[str, list[Leg]] = defaultdict(list)
        for leg in self.legs:
            if leg.app == "callback" and _placed(leg) and not leg.is_b:
                placed[_digits(leg.number)].append(leg)
        for number in self.missed:
            ring, back = refused.get(number), placed.get(number, [])
            # A caller who answered and was cut off by the death of a node or socket may be rung again.
            if sum(one.answered is not None and one.ended_itself for one in back) > 1:
                refs = [ref for one in back for ref in one.refs]
                self._find(DOUBLED, "callback", f"called back {len(back)} times, answered more than once", refs)
            if ring is None or ring.cause != "USER_BUSY" or ring.ended_itself:
                self.outcomes["callback", "(its ring was not taken)"] += 1
            elif not back:
                if self.no_callback(ring.ended):
                    self.outcomes["callback", "(not placed: a kill in that second)"] += 1
                else:
                    self._find(MISSING, "callback", "refused with 486 and never called back", legs=[ring])

    # Requests -----------------------------------------------------------------------------------------

    def _rung_once(self) -> None:
        """Check that a request repeated with its idempotency key rang one agent."""
        by_contact: dict[str, set[str]] = defaultdict(set)
        for leg in self.legs:
            contact = leg.variables.get("esl_contact_ref", "")
            if contact.startswith("chaos-") and _placed(leg) and leg.ref:
                by_contact[contact].add(leg.ref)
        for contact, refs in by_contact.items():
            if len(refs) > 1:
                self._find(DOUBLED, "click2dial", f"{contact} was placed {len(refs)} times", sorted(refs))
        for one in self.asked:
            if one.call_ref is None:
                self.outcomes[one.app, f"(HTTP {one.status or 'no answer'})"] += 1


def _placed(leg: Leg) -> bool:
    """Whether this is an A-leg that a node rang."""
    return leg.direction == "outbound" and not leg.is_b


def _failed_itself(leg: Leg) -> bool:
    """Whether its phone or its gateway ended it."""
    return leg.ended_itself or leg.cause == SILENT


def _gateway_failed(leg: Leg) -> bool:
    return not leg.answered and (leg.q850 in GATEWAY_FAILED or leg.cause == SILENT)


def _by_last_gateway(legs: list[Leg]) -> list[Leg]:
    """The legs without those whose gateway failed, and after which the next gateway's leg was placed."""
    last = max((leg.created for leg in legs), default=0.0)
    return [leg for leg in legs if leg.answered or leg.ended > last or not _gateway_failed(leg)]


def _failure(leg: Leg) -> str:
    if leg.cause == SILENT:
        return "failed"
    if not leg.ended_itself and not leg.answered:
        return "no_answer"
    if leg.q850 == 17:
        return "busy"
    return "no_answer" if leg.q850 in NO_ANSWER else "failed"


def _digits(number: str) -> str:
    number = number.removeprefix("+")
    return "27" + number[1:] if number.startswith("0") else number


def compare_minutes(
    legs: Iterable[Leg],
    counted: dict[str, float],
    disturbed: Callable[[float, float], bool],
    transferred: Iterable[Leg] = (),
) -> list[Finding]:
    """Compare the seconds that were counted for the integrator and the account with the talk that the switches saw.

    ``disturbed``: whether anything happened between two times. ``transferred``: legs of transferred calls that are
    paid for.
    """
    talked: Counter[str] = Counter()
    allowed: Counter[str] = Counter()
    for leg in legs:
        level = "integrator:acme" if leg.app == "click-dial" else "account:acme"
        pays = not leg.is_b if leg.app in _FIRST_LEG_PAYS else leg.is_b
        if not leg.answered or not pays or leg.app == "inbound":
            continue
        talked[level] += leg.ended - leg.answered  # type: ignore[assignment]
        off = COUNTED_TOLERANCE if disturbed(leg.answered, leg.ended + COUNTED_TOLERANCE) else UNDISTURBED_TOLERANCE
        allowed[level] += off  # type: ignore[assignment]
    for leg in transferred:
        if leg.answered:
            talked["integrator:acme"] += leg.ended - leg.answered  # type: ignore[assignment]
            # It is paid for while it talks, not while it is taken from one call to the next.
            allowed["integrator:acme"] += COUNTED_TOLERANCE  # type: ignore[assignment]
    return [
        Finding(MINUTES, "-", f"{level}: {counted.get(level, 0.0):.0f} s counted, {talked[level]:.0f} s talked")
        for level in sorted(talked | counted)
        if abs(counted.get(level, 0.0) - talked[level]) > allowed[level]
    ]
