"""A call that has ended."""

from __future__ import annotations

from typing import Annotated, Any

from esl_apps.core.call_fields import CallFields, Shown, values_of


class Record(CallFields, frozen=True, kw_only=True, eq=False, dict=True):  # type: ignore[misc] # of one not frozen
    """An ended attempt: its fields as they were then, and how it ended. It never changes.

    Here ``dialed_at`` is the time of the request if nothing was dialled. ``recording_url`` is None if the two parties
    were not connected, or the switch wrote no recording.
    """

    dialed_at: Annotated[float, Shown(cdr="dialed_at")]
    ended_at: Annotated[float, Shown(cdr="ended_at")]
    end_reason: Annotated[str, Shown(cdr="end_reason")]
    end_code: Annotated[int, Shown(cdr="end_code")]
    """Q.850, 1 to 127."""
    hung_up_by: Annotated[str, Shown(cdr="hung_up_by")]
    call_time: Annotated[int, Shown(cdr="call_time")]
    """Whole seconds from the first INVITE to the end."""

    @classmethod
    def of(cls, call: CallFields, **ending: Any) -> Record:
        """Return the record of a call that has ended. ``ending``: the fields that only a record has."""
        values = values_of(call)
        # By position: by their names, sixty fields take ten times as long.
        return cls(*values[:_DIALED_AT], *values[_DIALED_AT + 1 :], dialed_at=values[_DIALED_AT], **ending)


_DIALED_AT = CallFields.__struct_fields__.index("dialed_at")
"""In a record it is required, and comes behind those that are not."""
