"""The versions of what outlives a process: documents in Redis, journal entries, call logs, variables of channels.

Nodes of two releases share one Redis while an upgrade or a rollback is under way, and a node's files are read by the
release that runs next. So each kind of document has a version, declared here and nowhere else.

1. A document says its version in the member ``v``; a list, in an object ``{"v": 2}`` behind its items. Without it, the
   version is 1.
2. A node reads its own version, the one before and the one after. Kinds that are kept for ever are read from version 1
   on. Anything else it refuses (:class:`VersionRefused`), and neither changes nor removes it: another node can read it.
3. A node that changes a document keeps the members that it doesn't know, and the higher of the two versions.

To change a kind: a new member that an older node may ignore needs no new version. Otherwise raise the version by one,
and keep writing what the version before needs for one release: nodes of that release read the document, too. New
members belong at the top level, because rule 3 holds there only.

Counters, sets, leases and single values have no place for a version. Their version is in their name: another format
gets another key (:data:`BY_NAME`), field, file or variable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    """For people."""
    keys: tuple[str, ...] = ()
    """The names in ``store.keys`` under which such documents are."""
    version: int = 1
    """The version that this release writes."""
    for_ever: bool = False
    """Such documents are never written again by themselves, so all earlier versions are read."""

    @property
    def oldest(self) -> int:
        return 1 if self.for_ever else max(1, self.version - 1)

    @property
    def latest(self) -> int:
        return self.version + 1

    def check(self, version: int) -> None:
        """:raises VersionRefused: this release doesn't read the version."""
        if not self.oldest <= version <= self.latest:
            raise VersionRefused(self, version)


class VersionRefused(Exception):
    """A document is of a version that this release doesn't read. ``str()`` says so, and what to do."""

    def __init__(self, kind: Kind, version: int) -> None:
        reads = f"{kind.oldest} to {kind.latest}"
        advice = "upgrade this node" if version > kind.latest else "upgrade one release at a time"
        super().__init__(f"a {kind.name} is of version {version}, this node reads {reads}: {advice}")
        self.kind = kind
        self.version = version


class Rest(NamedTuple):
    """The members of a document that this release doesn't know."""

    version: int = 0
    members: bytes = b""
    """As JSON has them between its brackets."""


NOTHING = Rest()

LIVE_CALL = Kind("live call", ("live",))
"""Also the lines of the call log."""
CALL = Kind("call's status", ("call",))
PROCESS = Kind("process's entry", ("NODES",))
REPORT = Kind("process's report", ("report",))
PAUSE = Kind("switch's pause", ("PAUSED",), for_ever=True)
IDEMPOTENCY_CLAIM = Kind("claim of an idempotency key", ("idempotency",))
CARD = Kind("card", ("CARDS",), for_ever=True)
ACCOUNT = Kind("imported account", ("account",), for_ever=True)
SETTINGS = Kind("document of imported settings", ("SYSTEM_CONFIG",), for_ever=True)
TRIP = Kind("breaker's trip", ("TRIPPED",), for_ever=True)
TRIP_LINE = Kind("line of the breakers' log", ("BREAKER_LOG",), for_ever=True)
PAYMENTS = Kind("leg's payments", ("payments",))
TIMED_CALL = Kind("timed call", ("timed_pending",))
RECORD = Kind("record in the history", ("history",), for_ever=True)
SESSION_PART = Kind("call's part of a session", ("session_parts",))
WEBHOOK_ENTRY = Kind("webhook's entry", ("webhook",))
JOURNAL_ENTRY = Kind("journal entry")
CHANNEL = Kind("leg on the switch")
"""The variables by which a node goes on with a leg of another process, in the variable ``esl_v``."""

CHANNEL_VARIABLES = {} if CHANNEL.version == 1 else {"esl_v": str(CHANNEL.version)}
"""What each leg carries of it."""

VARIABLES = (
    "esl_account_id",
    "esl_app",
    "esl_bleg",
    "esl_call_ref",
    "esl_callee",
    "esl_callee_digits",
    "esl_contact_ref",
    "esl_outbound_id",
    "esl_session_ref",
    "esl_user_id",
    "esl_v",
)
"""The variables that nodes read from legs of other processes: what :data:`CHANNEL` is the version of."""

KINDS = (
    LIVE_CALL,
    CALL,
    PROCESS,
    REPORT,
    PAUSE,
    IDEMPOTENCY_CLAIM,
    CARD,
    ACCOUNT,
    SETTINGS,
    TRIP,
    TRIP_LINE,
    PAYMENTS,
    TIMED_CALL,
    RECORD,
    SESSION_PART,
    WEBHOOK_ENTRY,
    JOURNAL_ENTRY,
    CHANNEL,
)

BY_NAME = {
    "CONSOLE_SECRET": "a value",
    "calls": "a set of references",
    "cancelled": "a value",
    "CANCELS": "a stream of references",
    "taken": "a value",
    "gone_on": "a value",
    "claims": "a value",
    "PING": "empty",
    "CARD_IDS": "a hash of values",
    "LAST_NUMBERS": "a hash of values",
    "cards_of": "a set of ids",
    "IMPORTED": "a hash of marks",
    "concurrent": "a set of references",
    "usage_calls": "a set of references",
    "usage_sums": "a hash of counters",
    "PIN_LOCKS": "a set of names",
    "pin_tries": "a set of references",
    "pin_lock": "a hash of counters",
    "pin_opened": "a set of callers",
    "timed_due": "a set of numbers",
    "timed_of": "a set of numbers",
    "timed_past": "a hash of counters",
    "seq": "a counter",
    "pushed": "a counter",
    "events": "passed on to clients as it is: members are only ever added",
    "LISTENERS": "a hash of times",
    "reached": "a counter",
    "webhook_state": "a hash of counters",
    "webhook_lease": "a value",
    "trial": "nothing that is read",
}
"""The other names in ``store.keys``, and what is under them: their version is in their name."""

FILES = {
    "begun.log": "live calls, as LIVE_CALL",
    "NUMBER.log": "journal entries, as JOURNAL_ENTRY",
    "boot": "a value",
    "done": "two counters",
    "lock": "empty",
}
"""The files of the state folder, and what is in them: their version is that of their lines, or in their name."""
