"""Prompts for an agent before their callee is dialled: an announcement, and the question for a key.

A mailbox answers a call, too, and its greeting may have tones in it. So one key, alone, says that a person is there.
"""

from __future__ import annotations

from collections.abc import Callable

from esl_apps.core.call import Call
from esl_apps.core.call_options import NUMBER
from esl_apps.core.numbers import Number

#: The key that confirms, the seconds for which it is waited for, and the seconds for which no other may follow it.
KEY, WAIT, ALONE = "1", 10.0, 1.0
#: How often it is asked for. Someone may have pressed another key.
TRIES = 2
#: Seconds without a key before a prompt begins, after keys that nothing had asked for, and the longest wait for them.
QUIET, GREETING = 1.0, 10.0

#: As ``Call.collect``, with the same first four parameters.
Collect = Callable[[str, int, float, float], str]


def prepare(call: Call, callee: Number, announce: str | None, *, confirm: bool) -> bool:
    """Play the announcement, and have the agent confirm that they are there. Return False if they don't.

    ``announce``: a prompt, a URL, or ``number``; None: nothing.
    """
    if confirm:
        call.answer()
        call.drop_keys(QUIET, GREETING)
    if announce not in (None, NUMBER):
        call.play(announce)
    if confirm:
        confirmed = is_confirmed(call, call.collect, f"{spoken(callee)} confirm_call")
        call.pass_keys()
        return confirmed
    if announce == NUMBER:
        call.play(spoken(callee))
    return True


def spoken(callee: Number) -> str:
    """Return the prompts that say who is called."""
    return " ".join(["call_to", *(f"digit_{digit}" for digit in callee.dialled if digit.isdigit())])


def is_confirmed(call: Call, collect: Collect, prompt: str) -> bool:
    """Ask for the key, and return whether it alone was pressed. A number in a mailbox's greeting is more than one."""
    for _ in range(TRIES):
        keyed = collect(prompt, 2, WAIT, ALONE)
        call.drop_keys(QUIET, GREETING)
        if keyed == KEY:
            return True
        if not keyed:
            break
    return False
