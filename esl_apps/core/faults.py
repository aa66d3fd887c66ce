"""Faults in a request's fields, and the refusal that lists them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request."""

    field: str
    code: str
    message: str


class Refused(Exception):
    """A request that dials nothing; ``faults`` says why, field by field."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults))
        self.faults = faults
