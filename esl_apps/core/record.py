"""An ended attempt, as it goes into notifications."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Record:
    """An ended attempt. Times are Unix seconds with fractions; None where the thing did not happen."""

    call_ref: str
    session_ref: str
    contact_ref: str
    app: str
    integrator: str | None
    extension: str | None
    number: str | None
    dial_number: str | None
    call_dir: str
    dialed_at: float
    answered_at: float | None
    bridged_at: float | None
    ended_at: float
    end_reason: str
    end_code: int
    hung_up_by: str
    hold_time: int
    recording_url: str | None
    switch: str | None

    @property
    def call_time(self) -> int:
        """Whole seconds from the first INVITE to the end."""
        return max(0, round(self.ended_at - self.dialed_at))
