"""One line of JSON per leg that has ended: a witness that no application writes or reads.

Unlike mod_json_cdr's folder it is small, lines are never removed from it, and it has the phone's side too.
Times are Unix seconds; None if the thing didn't happen.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from esl_apps.sandbox.phones.phone import Dialog
from esl_apps.sandbox.protocols import Leg

_LONGEST_ARGUMENT = 400


class Legs:
    """Appends to the file. Each line is written at once, because the switch may be killed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", errors="surrogateescape", buffering=1)

    def write(self, channel: Leg, *, killed: bool = False) -> None:
        """Write the line of a leg that has ended, or whose switch ends now."""
        self._file.write(json.dumps(document(channel, killed=killed), separators=(",", ":")) + "\n")


def document(channel: Leg, *, killed: bool = False) -> dict[str, Any]:
    """Return one leg's line. ``killed``: it had not ended when its switch died."""
    times = channel.profile.times
    dialog = channel.endpoint if isinstance(channel.endpoint, Dialog) else None
    variables = dict(channel.variables())
    return {
        "uuid": channel.uuid,
        "switch": channel.switch.bus.core_uuid,
        "direction": channel.direction,
        "number": dialog.leg.number if dialog else channel.profile.destination_number,
        "caller": dialog.leg.caller_number if dialog and dialog.leg.direction == "in" else channel.profile.ani,
        "phone": dialog.phone.number if dialog and dialog.phone else None,
        "created": times.created / 1e6,
        "ringing": times.progress / 1e6 or None,
        "answered": times.answered / 1e6 or None,
        "bridged": times.bridged / 1e6 or None,
        "ended": time.time() if killed else times.hungup / 1e6,
        "killed": killed,
        "cause": variables.get("hangup_cause"),
        "q850": int(variables.get("hangup_cause_q850") or 0),
        "ended_by": dialog.leg.ended_by if dialog else None,
        "status": dialog.leg.status if dialog else None,
        "other": channel.other[1].uuid if channel.other else None,
        "variables": {
            name: value for name, value in variables.items() if name.startswith(("esl_", "socket_", "last_bridge"))
        },
        "applications": [
            [executed.app, executed.data[:_LONGEST_ARGUMENT], executed.stamp / 1e6] for executed in channel.applications
        ],
    }
