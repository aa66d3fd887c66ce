"""Find what a switch's SIP profiles lack for phones in browsers.

``sofia xmlstatus profile`` shows the bindings for WebSocket of a running profile, but not its candidate ACL. Only the
switch's configuration has both (``xml_locate``), as it was last read: a profile that was changed since its start has to
be restarted before the change is in force.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.etree import ElementTree

#: The event-socket command whose answer is read. It holds the gateways' passwords, so never print it.
COMMAND = "xml_locate configuration configuration name sofia.conf"
_BINDINGS = ("ws-binding", "wss-binding")
_ACL = "apply-candidate-acl"
#: FreeSWITCH's list of the addresses that aren't private. It applies where a profile names no list.
_PUBLIC = "wan.auto"


class Unreadable(Exception):
    """The switch's answer isn't a configuration of SIP profiles."""


@dataclass(frozen=True)
class Profile:
    """A SIP profile that browsers can connect to."""

    name: str
    bindings: tuple[str, ...]
    """As ``wss-binding :7443``."""
    candidates: tuple[str, ...] = field(default=())
    """The lists of addresses to which audio is sent."""

    @property
    def fault(self) -> str | None:
        """The reason why some browsers can't talk, and how to mend it."""
        if not self.candidates:
            return (
                f"lacks {_ACL}: calls of browsers on private networks end with cause 88 (SIP 488); "
                "paste conf/freeswitch/webrtc.snippet into the profile and restart it"
            )
        if self.candidates == (_PUBLIC,):
            return f"{_ACL} has only {_PUBLIC}: calls of browsers on private networks end with cause 88 (SIP 488)"
        return None


def profiles(xml: str) -> list[Profile]:
    """Return the profiles with a binding for WebSocket.

    :raises Unreadable: this isn't the configuration of mod_sofia.
    """
    try:
        # It comes from the operator's own switch, whose administrator can do worse than send a malicious document.
        root = ElementTree.fromstring(xml.strip())  # noqa: S314
    except ElementTree.ParseError:
        raise Unreadable("the switch's answer is not XML") from None
    return [profile for element in root.iter("profile") if (profile := _profile(element)).bindings]


def _profile(element: ElementTree.Element) -> Profile:
    settings = [(param.get("name", ""), param.get("value", "")) for param in element.iterfind("settings/param")]
    bindings = tuple(f"{name} {value}" for name, value in settings if name in _BINDINGS and value)
    return Profile(element.get("name", ""), bindings, tuple(_candidates(settings)))


def _candidates(settings: list[tuple[str, str]]) -> Iterator[str]:
    values = [value for name, value in settings if name == _ACL and value]
    # "none" drops the lists before it.
    last = max((i for i, value in enumerate(values) if value.lower() == "none"), default=-1)
    yield from values[last + 1 :]
