"""From a call to its packet capture: what was wrong with the sound of each leg, and where to look for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

#: A Call-ID that may be part of a command: a phone can send anything.
_PLAIN = re.compile(r"[A-Za-z0-9._@:+=~%-]+")
#: A packet before the INVITE and one after the BYE belong to the call, too: seconds.
_MARGIN = 60
#: Below this score, or above this share of lost packets, people complain.
_POOR, _LOST = 3.6, 0.02


def legs(call: Mapping[str, Any], capture_url: str | None = None) -> list[dict[str, Any]]:
    """Return the legs of a call that has ended, each with its ``party``, its quality, ``faults`` in words and, with
    ``capture_url``, the address of its capture."""
    record = call.get("record") or {}
    found = []
    for party in ("agent", "callee"):
        quality = (record.get("quality") or {}).get(party)
        if quality is not None:
            url = _url(capture_url, quality["sip_call_id"], record) if capture_url and quality["sip_call_id"] else None
            found.append({"party": party, **quality, "faults": _faults(party, quality), "capture_url": url})
    return found


def display_filter(call: Mapping[str, Any]) -> str | None:
    """Return the filter with which tshark and Wireshark show the SIP of all legs; None if no leg has a Call-ID."""
    ids = [leg["sip_call_id"] for leg in legs(call) if leg["sip_call_id"] and _PLAIN.fullmatch(leg["sip_call_id"])]
    return " || ".join(f'sip.Call-ID == "{id}"' for id in ids) or None


def _url(template: str, call_id: str, record: Mapping[str, Any]) -> str:
    values = {
        "{call_id}": quote(call_id, safe=""),
        "{from}": str((int(record["dialed_at"]) - _MARGIN) * 1000),
        "{to}": str((int(record["ended_at"]) + _MARGIN) * 1000),
    }
    for name, value in values.items():
        template = template.replace(name, value)
    return template


def _faults(party: str, quality: Mapping[str, Any]) -> list[str]:
    faults = []
    if quality["packets_in"] == 0:
        faults.append(f"nothing was heard from the {party}: their phone, or a firewall on the way, sent no sound")
    if quality["packets_out"] == 0:
        faults.append(f"the {party} heard nothing: the switch sent no sound")
    if quality["mos"] is not None and quality["mos"] < _POOR:
        faults.append(f"the {party} sounded bad: MOS {quality['mos']:.1f}")
    if quality["loss"] is not None and quality["loss"] > _LOST:
        faults.append(f"{quality['loss'] * 100:.0f} % of the {party}'s sound was lost")
    return faults


def lines(call: Mapping[str, Any], capture_url: str | None) -> list[str]:
    """Return how each leg sounded and where its packets are, as lines for a terminal."""
    found: list[str] = []
    for leg in legs(call, capture_url):
        said = [
            ("{}", leg["codec"]),
            ("MOS {:.1f}", leg["mos"]),
            ("loss {:.1%}", leg["loss"]),
            ("jitter {:.0f} ms", leg["jitter"]),
            ("round trip {:.0f} ms", leg["round_trip"]),
            ("{} packets in", leg["packets_in"]),
            ("{} out", leg["packets_out"]),
            ("gateway {}", leg["gateway"]),
            ("SIP {}", leg["sip_status"]),
        ]
        found.append(f"{leg['party']:<8}" + "  ".join(form.format(value) for form, value in said if value is not None))
        found += [f"        {fault}" for fault in leg["faults"]]
        if leg["sip_call_id"]:
            found.append(f"        Call-ID {leg['sip_call_id']}")
        if leg["capture_url"]:
            found.append(f"        {leg['capture_url']}")
    wanted = display_filter(call)
    if wanted is not None:
        found.append(f"capture tshark -r FILE -Y '{wanted}'")
    return found
