"""The names of all keys in Redis: nothing else in the package, its tests or its benchmarks spells one out.

In a cluster, the part in braces (the *hash tag*) decides on which node a key is. Keys that one script or one
transaction uses together share their tag.
"""

from __future__ import annotations

# Calls ------------------------------------------------------------------------------------------------

#: Hash: a process's boot → its name, its address and its last beat.
NODES = "esl_apps:nodes"
#: Hash: a paused switch → who paused it, and when.
PAUSED = "esl_apps:paused_switches"


#: String: the secret that signs the console's sessions, the same for all nodes.
CONSOLE_SECRET = "esl_apps:console_secret"  # noqa: S105 - a name


def report(boot: str) -> str:
    """String: what a process last said of itself, as JSON."""
    return f"esl_apps:report:{boot}"


def call(ref: str) -> str:
    """String: a call as clients see it."""
    return f"esl_apps:call:{ref}"


def calls(integrator: str) -> str:
    """Sorted set: the references of an integrator's calls of the last day ('': those of no integrator)."""
    return f"esl_apps:calls:{integrator}"


def live(boot: str) -> str:
    """Hash: the references of a process's live calls → their essences. Outlives the process that wrote it."""
    return f"esl_apps:live:{boot}"


def cancelled(ref: str) -> str:
    """String: the party for which a call is being cancelled."""
    return f"esl_apps:cancelled:{ref}"


#: Stream: the references of calls to be cancelled, from nodes that don't reach their switches.
CANCELS = "esl_apps:cancels"


def taken(ref: str) -> str:
    """String: the process that has taken over a call."""
    return f"esl_apps:taken:{ref}"


def gone_on(ref: str) -> str:
    """String: under which reference the caller of a call goes on, and with which process."""
    return f"esl_apps:gone_on:{ref}"


def claims(asked: str) -> str:
    """Counter: how many processes would do what was asked of a call."""
    return f"esl_apps:claims:{asked}"


def idempotency(integrator: str, digest: str) -> str:
    """String: the claim of an idempotency key. ``digest``: the key's SHA-256 in hex."""
    return f"esl_apps:idempotency:{integrator}:{digest}"


#: String: written by each node once a second, to see whether Redis takes writes.
PING = "esl_apps:ping"


# Cards and accounts -----------------------------------------------------------------------------------

#: Hash: claim (``p`` + keyed hash of the PIN, or ``c`` + E.164 digits) → card.
CARDS = "esl_apps:{cards}"
#: Hash: card id → claim.
CARD_IDS = "esl_apps:{cards}:ids"
#: Hash: card id → the last number that it dialled.
LAST_NUMBERS = "esl_apps:{cards}:last_number"


def cards_of(account_id: str) -> str:
    """Sorted set: the ids of an account's cards, in the order of creation."""
    return f"esl_apps:{{cards}}:of:{account_id}"


def account(account_id: str) -> str:
    """Hash of an imported account: ``account`` → the account, ``user:ID`` → the user's rules."""
    return f"esl_apps:account:{account_id}"


#: Hash: ``cccp`` or ``callflow.disa`` → the settings that were imported.
SYSTEM_CONFIG = "esl_apps:system_config"
#: Hash: an imported document → its mark (``cli.kazoo_import.marks``).
IMPORTED = "esl_apps:imported"


# Limits -----------------------------------------------------------------------------------------------


def concurrent(holder: str) -> str:
    """Sorted set: the references of a holder's calls that are up → when their leases end."""
    return f"esl_apps:concurrent:{{{holder}}}"


def usage_calls(counted: str) -> str:
    """Sorted set: calls of the last hour → when they were dialled. ``counted``: as ``account:acme/country:CU``."""
    return f"esl_apps:usage:{{{counted}}}:calls"


def usage_sums(counted: str) -> str:
    """Hash: ``n`` + day (since 1970, UTC) → calls; ``d`` + day and ``m`` + minute → seconds taken."""
    return f"esl_apps:usage:{{{counted}}}:sums"


def payments(boot: str) -> str:
    """Hash: a leg that a process pays for → what it has paid (``core.tickets.Payments``). Outlives that process."""
    return f"esl_apps:payments:{boot}"


#: Hash: a tripped breaker's scope → when, why and by whom it was tripped.
TRIPPED = "esl_apps:{breaker}:tripped"
#: List: the latest trips and resets, newest first.
BREAKER_LOG = "esl_apps:{breaker}:log"


# PIN guard --------------------------------------------------------------------------------------------

#: Sorted set: the names of locks → until when they hold.
PIN_LOCKS = "esl_apps:{pin_guard}:locks"


def pin_tries(counter: str) -> str:
    """Sorted set: wrong PINs → when they were typed. ``counter``: as ``number:27825556666``, or ``all``."""
    return f"esl_apps:{{pin_guard}}:wrong:{counter}"


def pin_lock(counter: str) -> str:
    """Hash: ``until`` (Unix seconds) and ``level`` (how many locks in a row)."""
    return f"esl_apps:{{pin_guard}}:lock:{counter}"


def pin_opened(pin_id: str) -> str:
    """Sorted set: callers who opened with this PIN → when they last did. ``pin_id``: as ``Guard.judge``'s."""
    return f"esl_apps:{{pin_guard}}:opened_by:{pin_id}"


# Callbacks --------------------------------------------------------------------------------------------


def timed_due(name: str) -> str:
    """Sorted set: number → when its call is due or, once taken, when the lease ends."""
    return f"esl_apps:{{{name}}}:due"


def timed_pending(name: str) -> str:
    """Hash: number → its timed call, and who has taken it."""
    return f"esl_apps:{{{name}}}:pending"


def timed_of(name: str, owner: str) -> str:
    """Set: the numbers of an account's timed calls."""
    return f"esl_apps:{{{name}}}:of:{owner}"


def timed_past(name: str, number: str) -> str:
    """Hash: ``ended`` (when the last call did), ``day``, ``count``, ``used``, ``keep``."""
    return f"esl_apps:{{{name}}}:past:{number}"


# Records ----------------------------------------------------------------------------------------------


def seq(notifications: str) -> str:
    """String: the last ``seq`` given to an entry of a list. The list's name is the tag: both are on one slot."""
    return f"esl_apps:{{{notifications}}}:seq"


def pushed(notifications: str, id: str) -> str:
    """String: the ``seq`` of an entry that was pushed to a list."""
    return f"esl_apps:{{{notifications}}}:done:{id}"


def history(integrator: str) -> str:
    """Sorted set: the records of an integrator's calls ('': of no integrator), each behind its reference."""
    return f"esl_apps:history:{integrator}"


def events(history: str) -> str:
    """Stream: what happens to the calls of a history, with the fields ``event`` and ``json``."""
    return f"esl_apps:{{{history}}}:events"


#: Hash: an integrator to whose calls a client listens ('': no integrator) → until when (Unix seconds).
LISTENERS = "esl_apps:listeners"


def reached(history: str, ref: str) -> str:
    """String: how far the events of a live call are written."""
    return f"esl_apps:{{{history}}}:reached:{ref}"


def session_parts(session_ref: str) -> str:
    """Hash: a call of a session whose calls may end on several nodes → what it adds to the closing entry."""
    return f"esl_apps:session_parts:{session_ref}"


# Webhooks ---------------------------------------------------------------------------------------------


def webhook(integrator: str, name: str) -> str:
    """Stream: what a webhook has to deliver, and has delivered of late. The outbox pushes to it, as to a list."""
    return f"esl_apps:webhook:{integrator}:{name}"


def webhook_state(queue: str) -> str:
    """Hash: the last entry that is done with, and how delivery goes. ``queue``: the webhook's stream."""
    return f"esl_apps:{{{queue}}}:state"


def webhook_lease(queue: str) -> str:
    """String: the process that delivers a webhook."""
    return f"esl_apps:{{{queue}}}:lease"


# Checks -----------------------------------------------------------------------------------------------


def trial(kind: str) -> str:
    """One key of each type: ``check`` tries commands on them."""
    return f"esl_apps:{{check}}:{kind}"
