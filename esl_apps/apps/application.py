"""What the rest of esl_apps must know of an application: one entry of the registry."""

from __future__ import annotations

from dataclasses import dataclass

from esl_apps.core.terms import CALLEE


@dataclass(frozen=True, kw_only=True, slots=True)
class Application:
    ref: str
    """Its name in records, metrics and logs."""
    path: str
    """The first part of its path on the event socket."""
    title: str
    """One line for people: what its callers get."""
    placed: bool = False
    """A node rings the A-leg. An answered leg that no node takes is hung up; another node goes on with the call."""
    session: bool = False
    """One caller dials several numbers, each with a record of its own."""
    recorded: bool = False
    """The talk is recorded if its integrator asks for that."""
    second_party: str = CALLEE
    """The party on the B-leg: ``callee``, or ``agent`` if the caller rang the agents."""
