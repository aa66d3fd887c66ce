"""mod_json_cdr with a ``log-dir`` and no ``url``: one file per leg."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from esl_apps.sandbox.leg.profile import CallerProfile
from esl_apps.sandbox.protocols import Leg
from esl_apps.sandbox.wire.wire import url_encode


def _profile(profile: CallerProfile) -> dict[str, Any]:
    return {
        "username": profile.username,
        "dialplan": profile.dialplan,
        "caller_id_name": profile.caller_id_name,
        "ani": profile.ani,
        "aniii": profile.aniii,
        "caller_id_number": profile.caller_id_number,
        "network_addr": profile.network_addr,
        "rdnis": profile.rdnis,
        "destination_number": profile.destination_number,
        "uuid": profile.uuid,
        "source": profile.source,
        "context": profile.context,
        "chan_name": profile.chan_name,
    }


def document(channel: Leg) -> dict[str, Any]:
    """Return a leg's CDR in FreeSWITCH's shape: only the variables' values are escaped."""
    times = channel.profile.times
    profile = _profile(channel.profile)
    if channel.other is not None:
        kind, other = channel.other
        profile[kind] = {f"{kind}_caller_profiles": [_profile(other)]}
    flow: dict[str, Any] = {
        "dialplan": channel.profile.dialplan,
        "profile_index": channel.profile.profile_index,
        "caller_profile": profile,
        "times": {
            "created_time": str(times.created),
            "profile_created_time": str(times.profile_created),
            "progress_time": str(times.progress),
            "progress_media_time": str(times.progress_media),
            "answered_time": str(times.answered),
            "bridged_time": str(times.bridged),
            "last_hold_time": str(times.last_hold),
            "hold_accum_time": str(times.hold_accum),
            "hangup_time": str(times.hungup),
            "resurrect_time": str(times.resurrected),
            "transfer_time": str(times.transferred),
        },
    }
    body: dict[str, Any] = {
        "core-uuid": channel.switch.bus.core_uuid,
        "switchname": channel.switch.bus.switchname,
        "channel_data": {
            "state": "CS_REPORTING",
            "direction": channel.direction,
            "state_number": "11",
            "flags": "0=1",
            "caps": "1=1",
        },
        "callStats": {"audio": {"inbound": {}, "outbound": {}}},
        "variables": {name: url_encode(value) for name, value in channel.variables()},
    }
    if channel.applications:
        body["app_log"] = {
            "applications": [
                {
                    "app_name": executed.app,
                    **({"app_data": executed.data} if executed.data else {}),
                    "app_stamp": str(executed.stamp),
                }
                for executed in channel.applications
            ]
        }
    if channel.hold_record:
        body["hold-record"] = [{"on": on, "off": off} for on, off in channel.hold_record]
    body["callflow"] = [flow]
    return body


def write(channel: Leg, spool: Path) -> None:
    """Write the file in place, as the module does."""
    text = json.dumps(document(channel), ensure_ascii=False, separators=(",", ":"))
    path = spool / f"{channel.uuid}.cdr.json"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
