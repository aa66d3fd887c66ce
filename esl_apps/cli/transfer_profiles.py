"""Find what a switch lacks for agents' transfer keys, what lets others transfer, and where anyone may call.

FreeSWITCH obeys a REFER that replaces a dialog it doesn't know by dialling what the sender names, past all that our
legs say (``deny_refer_requests``, ``force_transfer_context``). A node ends that (``node.attended``), but only
``disable-transfer`` in the sender's SIP profile prevents it, so the profiles of trunks need it.

An INVITE with Replaces has FreeSWITCH run what another leg runs (hazard 47), so it should take INVITEs only from
addresses and phones that it knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from xml.etree import ElementTree

from esl_apps.apps.legs import REFER

#: The event-socket command that shows the context of agents' transfers.
CONTEXT = f"xml_locate dialplan context name {REFER}"
_TRUE = frozenset({"yes", "on", "true", "t", "enabled", "active", "allow", "1"})

#: ``sofia/gateway/GATEWAY/…``, ``sofia/gateway/PROFILE::GATEWAY/…`` or ``sofia/PROFILE/…@HOST``.
_TRUNK = re.compile(r"sofia/(?:gateway/(?:([^/]+)::)?([^/]+)|([^/]+))/", re.IGNORECASE)


class Trunk(NamedTuple):
    profile: str | None
    """None for that of the gateway, whichever it is."""
    gateway: str | None
    """None for calls to an address."""


def has_context(xml: str) -> bool:
    """Return whether this is the context, and leads to a node."""
    return f'name="{REFER}"' in xml and "/transfer/refer" in xml


def open_profiles(xml: str, trunks: Iterable[Trunk]) -> list[str]:
    """Return the profiles of these trunks whose far ends may transfer. ``xml``: the configuration of mod_sofia.

    :raises ElementTree.ParseError: it isn't XML.
    """
    # It comes from the operator's own switch.
    root, trunks = ElementTree.fromstring(xml.strip()), list(trunks)  # noqa: S314
    return [
        profile.get("name", "")
        for profile in root.iter("profile")
        if any(_has(profile, trunk) for trunk in trunks) and not _is_set(profile, "disable-transfer")
    ]


def _has(profile: ElementTree.Element, trunk: Trunk) -> bool:
    names = {profile.get("name"), *(alias.get("name") for alias in profile.iterfind("aliases/alias"))}
    gateways = {gateway.get("name") for gateway in profile.iterfind("gateways/gateway")}
    return trunk.profile in (None, *names) and trunk.gateway in (None, *gateways)


def profiles_for_anyone(xml: str) -> list[str]:
    """Return the profiles that take calls from any address, without a password. ``xml``: as for :func:`open_profiles`.

    :raises ElementTree.ParseError: it isn't XML.
    """
    root = ElementTree.fromstring(xml.strip())  # noqa: S314 - as above
    return [
        profile.get("name", "")
        for profile in root.iter("profile")
        if not _is_set(profile, "auth-calls") and not any(_values(profile, "apply-inbound-acl"))
    ]


def _is_set(profile: ElementTree.Element, name: str) -> bool:
    return any(value.lower() in _TRUE for value in _values(profile, name))


def _values(profile: ElementTree.Element, name: str) -> list[str]:
    params = profile.iterfind("settings/param")
    return [param.get("value") or "" for param in params if param.get("name") == name]


def trunks_of(dial_strings: Iterable[str]) -> list[Trunk]:
    """Return the trunks that dial strings name."""
    matches = (_TRUNK.match(text) for text in dial_strings)
    return [Trunk(match[1] or match[3], match[2]) for match in matches if match]
