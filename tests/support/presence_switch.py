"""A switch that answers what is asked about an agent: registrations, channels and their variables."""

from __future__ import annotations

import json

import gevent

from esl_apps.esl.answers import ReplyError

CONTACT = "sofia/internal/sip:1000@192.0.2.7:5060"
NOBODY = "error/user_not_registered"


class AnsweringSwitch:
    """A switch with one phone's registration and some channels; one that is ``gone`` is listed only. ``fails`` is
    raised by every command."""

    def __init__(self, contact: str = NOBODY, *channels: dict[str, str], fails: Exception | None = None) -> None:
        self.name = f"fs-{id(self)}"
        self.connected = True
        self.asked: list[str] = []
        self._contact = contact
        self._channels = channels
        self._fails = fails
        self.takes = 0.0
        """Seconds of an answer."""
        self.backlog = 0

    def api(self, command: str, _timeout: float) -> str:
        self.asked.append(command)
        gevent.sleep(self.takes)
        if self._fails is not None:
            raise self._fails
        name, _, rest = command.partition(" ")
        if name == "sofia_contact":
            return self._contact
        if name == "show":
            return json.dumps(
                {"row_count": len(self._channels), "rows": self._channels} if self._channels else {"row_count": 0}
            )
        uuid, _, variable = rest.partition(" ")
        channel = next((one for one in self._channels if one["uuid"] == uuid and "gone" not in one), None)
        if name == "uuid_exists":
            return "false" if channel is None else "true"
        if channel is None:
            raise ReplyError("-ERR No such channel!")
        return channel.get(variable, "_undef_")
