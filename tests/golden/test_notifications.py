"""Each notification complete, byte for byte, as a client pops it from its list; and each call as its status and its
entry among the live calls in Redis show it, which nodes of another version read.

One file per application, outcome and form. ``make golden`` rewrites them; read the difference before you commit
it, because clients parse these bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from esl_apps.config.model import Integrator
from esl_apps.config.records import RecordsConfig
from esl_apps.core.notification import session_record
from esl_apps.core.status import snapshot
from esl_apps.node import notification_lists
from esl_apps.store.essence import essence
from esl_apps.store.journal import Entry
from tests.support import notified

FOLDER = Path(__file__).parent
WRITE = os.environ.get("GOLDEN") == "write"


def integrator(**more: object) -> Integrator:
    return Integrator(name="acme", listen="127.0.0.1:8300", **more)  # type: ignore[arg-type]


ALL = tuple(dict.fromkeys(case.split("/")[0] for case in notified.CASES))
#: Folder → the integrator whose choices give this form, and the applications whose records may go to one.
FORMS = {
    "status": (None, ALL),
    "live": (None, ALL),
    "cdr_v3": (None, ALL),
    "cdr_v4": (None, ALL),
    "cdr_v2": (integrator(payload="v2"), ("click-dial", "inbound")),
    "cdr_teleforge": (integrator(dispositions="teleforge"), ("click-dial", "inbound")),
    "session": (None, ("callback", "disa")),
    "c2d": (integrator(legacy_c2d=True), ("click-dial",)),
    "inbound_v3": (integrator(), ("inbound",)),
    "inbound_v4": (integrator(payload="v4"), ("inbound",)),
    "inbound_v2": (integrator(payload="v2"), ("inbound",)),
}


def pushed(entries: list[Entry]) -> Iterator[str]:
    """Yield the JSON that the outbox pushes. The first entry is the first of its list (``seq`` 1)."""
    for seq, entry in enumerate(entries, 1):
        yield f"{entry.head}{seq}{entry.tail}" if entry.tail else entry.head


def printed(form: str, case: str) -> Iterator[str]:
    told = notified.run(case)
    if form == "status":
        return (msgspec.json.encode(snapshot(attempt)).decode() for attempt in told.attempts)
    if form == "live":
        return (msgspec.json.encode(essence(attempt, "core-1")).decode() for attempt in told.attempts)
    return pushed(notifications(form, told))


def notifications(form: str, told: notified.Told) -> list[Entry]:
    one = FORMS[form][0]
    others = RecordsConfig(payload="v4" if form.endswith("v4") else "v3")
    if form.startswith("inbound"):
        return [notification_lists.answered(*answer, one, others) for answer in told.answers]
    if form == "session":
        last = told.records[-1]
        return [notification_lists.closing(session_record(last, recorded=True), one)]
    entries = [entry for record in told.records for entry in notification_lists.entries(record, one, others)]
    return [entry for entry in entries if entry.list.endswith("c2d") == (form == "c2d")]


EXPECTED = [
    f"{form}/{case}" for form, (_, apps) in FORMS.items() for case in notified.CASES if case.split("/")[0] in apps
]


@pytest.mark.parametrize("name", EXPECTED)
def test_notification_reads_as_its_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    notified.at_fixed_time(monkeypatch)
    form, _, case = name.partition("/")
    text = "".join(line + "\n" for line in printed(form, case))
    path = FOLDER / form / f"{case.replace('/', '-')}.json"
    if WRITE and text:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    # A call that is not announced (inbound, not answered) has no file.
    assert text == (path.read_text() if path.exists() else "")


def test_every_golden_file_belongs_to_a_case() -> None:
    known = {f"{form}/{case.replace('/', '-')}.json" for form, _, case in (name.partition("/") for name in EXPECTED)}
    files = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.json")}
    assert files <= known
    assert {name.partition("/")[0] for name in files} == set(FORMS)


def test_every_end_reason_has_a_golden_file() -> None:
    lines = [line for path in (FOLDER / "cdr_v3").glob("*.json") for line in path.read_text().splitlines()]
    reasons = {json.loads(line)["payload"]["end_reason"] for line in lines}
    assert reasons == {
        "answered",
        "agent_no_answer",
        "agent_busy",
        "agent_failed",
        "agent_unconfirmed",
        "callee_no_answer",
        "callee_busy",
        "callee_failed",
        "cancelled",
        "abandoned",
        "rejected",
        "lost",
    }
