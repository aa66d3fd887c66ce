"""The account of the calls that were transferred: a record for each call, and no party left in silence.

The legs of such a call change calls, by commands that no leg's list of applications shows. So they are compared with
their records in a way of their own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.chaos.accounts import DOUBLED, MISSING, WRONG, Finding, Record
from tests.chaos.load import REFERRING, TRANSFERRING, Transfer
from tests.chaos.witness import Leg

SILENCE = "left in silence"
#: Seconds for which a party may hear nothing: twice the watchdog's, while the nodes are tried.
SILENT = 20.0
#: Applications by which a party that has no other one hears something.
_HEARD = frozenset({"endless_playback", "playback", "bridge"})


@dataclass(frozen=True)
class Moved:
    """The legs and records of sessions in which a transfer was asked for."""

    transfers: list[Transfer]
    legs: list[Leg]
    records: list[Record]

    def findings(self) -> Iterator[Finding]:
        """All disagreements."""
        by_ref: dict[str, list[Record]] = defaultdict(list)
        for record in self.records:
            by_ref[record["call_ref"]].append(record)
        legs: dict[str, list[Leg]] = defaultdict(list)
        for leg in self.legs:
            legs[_session(leg, by_ref)].append(leg)
        for ref, records in by_ref.items():
            if len(records) > 1:
                yield Finding(DOUBLED, "transfer", f"{len(records)} records", (ref,))
            new = records[0].get("transferred_to")
            if new is not None and new not in by_ref:
                yield Finding(MISSING, "transfer", f"no record of {new}, in which a party went on", (ref,))
        for asked in self.transfers:
            due = {asked.call_ref, asked.transfer_ref} - {None}
            # A party that is about to be joined with one who has just left carries the next call's reference, alone.
            carried = Counter(ref for leg in legs[asked.call_ref] for ref in leg.refs)
            due |= {ref for ref, count in carried.items() if count > 1}
            for missing in sorted(ref for ref in due if ref and ref not in by_ref):
                text = f"no record, in a session with a transfer ({asked.mode})"
                yield Finding(MISSING, "transfer", text, (missing, asked.call_ref), at=asked.at)
            yield from _silent(asked, legs[asked.call_ref])
            first = by_ref.get(asked.call_ref)
            if first and asked.transfer_ref and first[0]["bridged_at"] is None:
                yield Finding(WRONG, "transfer", "transferred, and never bridged", (asked.call_ref,), at=asked.at)

    def outcomes(self) -> Counter[tuple[str, str]]:
        modes = {asked.call_ref: asked.mode for asked in self.transfers}
        return Counter(
            (f"transfer ({modes[record['session_ref']]})", record["end_reason"])
            for record in self.records
            if record["session_ref"] in modes
        )


def split(
    transfers: list[Transfer], legs: Iterable[Leg], records: Iterable[Record]
) -> tuple[Moved, list[Leg], list[Record]]:
    """Return the transferred sessions, and the other legs and records."""
    sessions = {asked.call_ref for asked in transfers}
    records = list(records)
    moved = [record for record in records if record["session_ref"] in sessions]
    refs = sessions | {record["call_ref"] for record in moved} | {one.transfer_ref for one in transfers}
    legs = list(legs)
    theirs = [leg for leg in legs if refs & _refs(leg)]
    uuids = {leg.uuid for leg in theirs}
    return (
        Moved(transfers, theirs, moved),
        [leg for leg in legs if leg.uuid not in uuids],
        [record for record in records if record["session_ref"] not in sessions],
    )


def pays(leg: Leg) -> bool:
    """Whether a leg of such a session is paid for: all but the agent's who had the call first."""
    return leg.number not in (*TRANSFERRING, *REFERRING)


def _refs(leg: Leg) -> set[str]:
    named = ("esl_call_ref", "esl_session_ref", "esl_bleg")
    return {*leg.refs, *(leg.variables[name] for name in named if name in leg.variables)}


def _session(leg: Leg, by_ref: dict[str, list[Record]]) -> str:
    known = [by_ref[ref][0]["session_ref"] for ref in sorted(_refs(leg)) if ref in by_ref]
    return known[0] if known else leg.variables.get("esl_session_ref") or leg.ref or ""


def _silent(asked: Transfer, legs: list[Leg]) -> Iterator[Finding]:
    answered = [leg for leg in legs if leg.answered]
    for leg in answered:
        if leg.killed:
            continue
        alone = max([leg.answered or 0.0, *(other.ended for other in answered if other is not leg)])
        silent = _unheard(leg, alone)
        if silent > SILENT:
            text = f"{leg.number} heard nothing for {silent:.0f} s"
            yield Finding(SILENCE, "transfer", text, (asked.call_ref,), (leg.uuid,), leg.created, leg.ended)


def _unheard(leg: Leg, since: float) -> float:
    """Return for how many seconds a leg has run nothing that its party hears, from a time on."""
    ran = sorted(leg.applications, key=lambda entry: entry[2])
    ends = [*(at for _app, _data, at in ran[1:]), leg.ended]
    return sum(
        max(0.0, end - max(at, since)) for (app, _data, at), end in zip(ran, ends, strict=False) if app not in _HEARD
    )
