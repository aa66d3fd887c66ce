"""Rules for ``cccp`` (calling cards, callback) and ``pin_guard``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from esl_apps.config.rules import context
from esl_apps.config.rules.context import Context, Finding

_HEADER = re.compile(r"From|[PX]-[A-Za-z0-9-]{1,62}", re.IGNORECASE)


def longest_locks_are_longer_than_the_first(c: Context) -> Iterator[Finding]:
    guard = c.config.pin_guard
    for key in ("longest_lock", "longest_service_lock"):
        if getattr(guard, key) < guard.lock:
            yield f"pin_guard.{key}", "is shorter than lock, which is the first"


def attest_header_is_a_header(c: Context) -> Iterator[Finding]:
    if not _HEADER.fullmatch(c.config.cccp.attest_header):
        yield "cccp.attest_header", "expected From, or the name of a header that begins with P- or X-"


def allowed_callee_is_a_regex(c: Context) -> Iterator[Finding]:
    if c.config.cccp.allowed_callee_regex is not None:
        yield from context.regex(c.config.cccp.allowed_callee_regex, "cccp.allowed_callee_regex")


def numbers_are_numbers(c: Context) -> Iterator[Finding]:
    keys = ("cccp_cb_number", "cccp_cc_number", "default_caller_id_number")
    yield from context.numbers(c.plan, [(f"cccp.{key}", getattr(c.config.cccp, key)) for key in keys])


def callback_and_dialthrough_have_a_number_each(c: Context) -> Iterator[Finding]:
    cccp = c.config.cccp
    if c.plan is None or not cccp.cccp_cb_number or not cccp.cccp_cc_number:
        return
    if c.plan.same(cccp.cccp_cb_number, cccp.cccp_cc_number):
        yield "cccp.cccp_cb_number", "is cccp_cc_number, too: callback and dialthrough need a number each"


RULES = (
    longest_locks_are_longer_than_the_first,
    attest_header_is_a_header,
    allowed_callee_is_a_regex,
    numbers_are_numbers,
    callback_and_dialthrough_have_a_number_each,
)
