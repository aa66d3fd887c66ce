"""The configuration's section ``pin_guard``."""

from __future__ import annotations

from typing import Annotated

from esl_apps.config.fields import LockSeconds, Section, Threshold, described


class PinGuard(Section, frozen=True):
    """Locks after wrong PINs, which ``store.pin_guard`` counts over all nodes."""

    window: Annotated[float, described("a number of seconds, 1 to 604800", ge=1, le=604_800)] = 3600
    """Time over which wrong PINs are counted."""
    per_number: Threshold = 10
    """Wrong PINs from one caller before they are locked: a number that a trunk asserts, otherwise a number at one
    address; withheld numbers of one address count as one."""
    per_address: Threshold = 50
    """From one address that is not in `trust`."""
    per_card: Threshold = 10
    """For one card."""
    per_service: Threshold = 50
    """At one DISA, at dialthrough, or at one dialled number, before all of it is locked."""
    per_token: Threshold = 5
    """Answers "in use" about another account's PIN or number, to one token or account, before it can set none for
    an hour; for the operator's tokens per_service."""
    new_pins: Threshold = 100
    """PINs that one token, and one account, may set over HTTP within window, before it can set none for an hour: each
    tells whether another account has it."""
    overall: Threshold = 200
    """Everywhere, before everything is locked."""
    lock: LockSeconds = 300
    """Duration of the first lock; each further lock lasts twice as long, and each window without one takes back a
    doubling."""
    longest_lock: LockSeconds = 3600
    """Limit for a number, an address or a card; an hour at most."""
    longest_service_lock: LockSeconds = 3600
    """Limit for a service and for everything; an hour at most."""
