"""``show``: channels, calls, registrations, tasks."""

from __future__ import annotations

import json
import re
import time

from esl_apps.sandbox.commands.registry import command, words_of
from esl_apps.sandbox.switch import Switch


def _rows(switch: Switch) -> list[dict[str, str]]:
    rows = []
    for channel in switch.channels.values():
        profile = channel.profile
        codec, rate, bits = channel.codec or ("", "", "")
        created = profile.times.created // 1_000_000
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created))
        rows.append(
            {
                "uuid": channel.uuid,
                "direction": channel.direction,
                "created": stamp,
                "created_epoch": str(created),
                "name": channel.name,
                "state": f"CS_{channel.running_state.name}",
                "cid_name": profile.caller_id_name,
                "cid_num": profile.caller_id_number,
                "ip_addr": profile.network_addr,
                "dest": profile.destination_number,
                "application": channel.running_app,
                "application_data": channel.running_arg,
                "dialplan": profile.dialplan,
                "context": profile.context,
                "read_codec": codec,
                "read_rate": rate,
                "read_bit_rate": bits,
                "write_codec": codec,
                "write_rate": rate,
                "write_bit_rate": bits,
                "secure": "",
                "hostname": switch.bus.switchname,
                "presence_id": channel.get("presence_id") or "",
                "presence_data": channel.get("presence_data") or "",
                "accountcode": channel.get("accountcode") or "",
                "callstate": channel.call_state,
                "callee_name": profile.callee_id_name,
                "callee_num": profile.callee_id_number,
                "callee_direction": "SEND" if channel.partner else "",
                "call_uuid": channel.get("call_uuid") or channel.uuid,
                "sent_callee_name": channel.get("last_sent_callee_id_name") or "",
                "sent_callee_num": channel.get("last_sent_callee_id_number") or "",
                "initial_cid_name": profile.orig_caller_id_name,
                "initial_cid_num": profile.orig_caller_id_number,
                "initial_ip_addr": profile.network_addr,
                "initial_dest": profile.rdnis or profile.destination_number,
                "initial_dialplan": profile.dialplan,
                "initial_context": profile.context,
            }
        )
    return rows


def _registrations(switch: Switch) -> list[dict[str, str]]:
    return [
        {
            "reg_user": phone.number,
            "realm": switch.domain,
            "token": f"{phone.number}-{n}",
            "url": contact,
            "expires": str(int(time.time()) + 3600),
            "network_ip": "127.0.0.1",
            "network_port": "20000",
            "network_proto": "udp",
            "hostname": switch.bus.switchname,
            "metadata": "",
        }
        for phone in switch.extensions.values()
        for n, contact in enumerate(phone.contacts())
    ]


#: The columns that ``show channels like`` compares.
_COMPARED = ("uuid", "name", "cid_name", "cid_num", "presence_data", "accountcode")


def _is_like(row: dict[str, str], pattern: str) -> bool:
    """Compare as SQL's LIKE does, in any case; a pattern without ``%`` may be anywhere."""
    wanted = pattern if "%" in pattern else f"%{pattern}%"
    expression = "".join({"%": ".*", "_": "."}.get(character, re.escape(character)) for character in wanted)
    return any(re.fullmatch(expression, row[column], re.IGNORECASE | re.DOTALL) for column in _COMPARED)


@command("show")
def show(switch: Switch, argument: str) -> str:
    """``channels|calls|registrations|tasks [count] [as json]``."""
    words = words_of(argument)
    subject = words[0].lower() if words else ""
    rows: list[dict[str, str]]
    if subject == "channels":
        rows = _rows(switch)
        if len(words) > 2 and words[1].lower() == "like":
            rows = [row for row in rows if _is_like(row, words[2])]
    elif subject in ("calls", "bridged_calls", "detailed_calls"):
        legs = {row["uuid"]: row for row in _rows(switch)}
        rows = []
        for channel in switch.channels.values():
            partner = channel.partner
            if partner is not None and not channel.bridge_originator:
                continue
            row = dict(legs[channel.uuid])
            other = legs.get(partner.uuid) if partner else None
            row.update({f"b_{name}": other[name] if other else "" for name in row})
            if subject == "calls" or partner is not None:
                rows.append(row)
    elif subject == "registrations":
        rows = _registrations(switch)
    elif subject == "tasks":
        rows = [
            {"task_id": str(task.number), "task_desc": task.name, "task_group": task.group}
            for task in switch.scheduler.tasks()
        ]
    elif subject in ("application", "api", "modules", "codec", "endpoint"):
        names = switch.applications if subject == "application" else switch.commands
        rows = [{"name": name, "ikey": "sandbox"} for name in sorted(names)]
    else:
        return (
            "-USAGE: codec|endpoint|application|api|dialplan|file|timer|calls [count]|channels "
            "[count|like <match string>]|calls|detailed_calls|bridged_calls|registrations|tasks\n"
        )
    if "count" in words:
        if "json" in words:
            return json.dumps({"row_count": len(rows), "rows": []}, separators=(",", ":"))
        return f"\n{len(rows)} total.\n"
    if "json" in words:
        if not rows:
            return '{"row_count": 0}\n'
        return json.dumps({"row_count": len(rows), "rows": rows}, separators=(",", ":"), ensure_ascii=False)
    if not rows:
        return "\n0 total.\n"
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    return "\n".join(lines) + f"\n\n{len(rows)} total.\n"
