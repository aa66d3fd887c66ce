"""The ``api`` commands, with the texts that FreeSWITCH answers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from esl_apps.sandbox.leg.channel import Channel, State, execute_command
from esl_apps.sandbox.leg.media import Recording
from esl_apps.sandbox.run.originate import Attempt
from esl_apps.sandbox.wire import causes, strings
from esl_apps.sandbox.wire.events import Event
from esl_apps.sandbox.wire.wire import url_encode

if TYPE_CHECKING:
    from esl_apps.sandbox.switch import Switch

NO_CHANNEL = "-ERR No such channel!\n"
_COMMANDS: dict[str, Callable[[Switch, str], str]] = {}


def command(*names: str) -> Callable[[Callable[[Switch, str], str]], Callable[[Switch, str], str]]:
    """Enter a function under its names."""

    def enter(function: Callable[[Switch, str], str]) -> Callable[[Switch, str], str]:
        for name in names:
            _COMMANDS[name] = function
        return function

    return enter


def execute(switch: Switch, name: str, argument: str) -> str:
    """Run a command; what stands in the response's body."""
    if switch.bus.wanted("API"):
        headers = [("API-Command", name)]
        if argument:
            headers.append(("API-Command-Argument", argument))
        switch.bus.fire(Event("API", after=headers))
    function = _COMMANDS.get(name.lower())
    if function is None:
        return f"-ERR {name} Command not found!\n"
    try:
        return function(switch, argument)
    except Exception as error:
        switch.report(f"api {name}", error)
        return f"-ERR {error}\n"


def _words(argument: str, limit: int = 0) -> list[str]:
    return strings.separate(argument, " ", limit)


def _channel(switch: Switch, uuid: str) -> Channel | None:
    """A channel that commands can still find."""
    return switch.locate(uuid.strip())


# -- placing and ending calls ------------------------------------------------------------------------------


@command("originate")
def originate(switch: Switch, argument: str) -> str:
    """``A &app(data)`` or ``A EXTENSION [DIALPLAN [CONTEXT [NAME [NUMBER [TIMEOUT]]]]]``."""
    words = _words(argument)
    if not 2 <= len(words) <= 7:
        return (
            "-USAGE: <call url> <exten>|&<application_name>(<app_args>) [<dialplan>] [<context>] "
            "[<cid_name>] [<cid_num>] [<timeout_sec>]\n"
        )
    words = ["" if word.lower() == "undef" else word for word in words] + [""] * 5
    target, extension, dialplan, context, name, number = words[:6]
    variables: dict[str, str] = {}
    if name:
        variables["origination_caller_id_name"] = name
    if number:
        variables["origination_caller_id_number"] = number
    timeout = strings.number(words[6]) if words[6] else 60
    outcome = Attempt(switch, None, target, timeout, variables).run()
    leg = outcome.leg
    if leg is None:
        return f"-ERR {outcome.cause}\n"
    leg.watcher = None
    if extension.startswith("&") and len(extension) > 1:
        call = extension[1:].split(")", 1)[0]
        app, _, data = call.partition("(")
        leg.actions.append((app, data))
        leg.hit_dialplan = True
        leg.state = State.EXECUTE
        leg.launch()
    else:
        leg.transfer(extension, dialplan or "XML", context or "default")
    return f"+OK {leg.uuid}\n"


@command("uuid_kill")
def uuid_kill(switch: Switch, argument: str) -> str:
    """End one leg."""
    if not argument:
        return "-USAGE: <uuid> [cause]\n"
    uuid, _, cause = argument.partition(" ")
    channel = _channel(switch, uuid)
    if channel is None:
        return NO_CHANNEL
    channel.hangup(causes.parse(cause) if cause else "NORMAL_CLEARING")
    return "+OK\n"


@command("hupall")
def hupall(switch: Switch, argument: str) -> str:
    """End all legs, or those of which a variable has a value."""
    words = _words(argument)
    cause = causes.parse(words[0], "MANAGER_REQUEST") if words else "MANAGER_REQUEST"
    # Newest first: the called before the caller, mostly; the original's order is a hash table's.
    channels = list(reversed(switch.channels.values()))
    if len(words) >= 3:
        for channel in channels:
            if channel.get(words[1]) == words[2]:
                channel.hangup(cause)
        return f"+OK hangup all channels matching [{words[1]}]=[{words[2]}] with cause: {cause}\n"
    for channel in channels:
        channel.hangup(cause)
    return f"+OK hangup all channels with cause {cause}\n"


@command("uuid_exists")
def uuid_exists(switch: Switch, argument: str) -> str:
    """Whether a leg is there."""
    return "true" if _channel(switch, argument) else "false"


@command("file_exists")
def file_exists(switch: Switch, argument: str) -> str:
    """Whether the switch can read a file."""
    return "true" if os.path.exists(argument) else "false"


@command("uuid_answer")
def uuid_answer(switch: Switch, argument: str) -> str:
    """Answer a caller."""
    channel = _channel(switch, argument)
    if channel is None:
        return "-ERROR\n"
    channel.answer()
    return "+OK\n"


@command("uuid_pre_answer")
def uuid_pre_answer(switch: Switch, argument: str) -> str:
    """Early media for a caller."""
    channel = _channel(switch, argument)
    if channel is None:
        return "-ERROR\n"
    channel.pre_answer()
    return "+OK\n"


@command("uuid_transfer")
def uuid_transfer(switch: Switch, argument: str) -> str:
    """``UUID [-bleg|-both] EXTENSION [DIALPLAN [CONTEXT]]``."""
    words = _words(argument)
    if len(words) < 2:
        return "-USAGE: <uuid> [-bleg|-both] <dest-exten> [<dialplan>] [<context>]\n"
    channel = _channel(switch, words[0])
    if channel is None:
        return NO_CHANNEL
    words = words[1:]
    targets = [channel]
    if words[0] in ("-bleg", "-both"):
        partner = channel.bonded()
        targets = [*([channel] if words[0] == "-both" else []), *([partner] if partner else [])]
        words = words[1:]
    padded = [*words, "", "", ""]
    for target in targets:
        target.transfer(padded[0], padded[1], padded[2])
    return "+OK\n"


@command("uuid_park")
def uuid_park(switch: Switch, argument: str) -> str:
    """Park a leg."""
    channel = _channel(switch, argument)
    if channel is None:
        return NO_CHANNEL
    channel.move(State.PARK)
    return "+OK\n"


@command("uuid_bridge")
def uuid_bridge(switch: Switch, argument: str) -> str:
    """Join two legs."""
    words = _words(argument)
    if len(words) != 2:
        return "-USAGE: <uuid> <other_uuid>\n"
    first, second = _channel(switch, words[0]), _channel(switch, words[1])
    if first is None or second is None or first.down or second.down:
        return "-ERR Invalid uuid\n"
    first.pending_bridge = second
    second.move(State.HIBERNATE)
    first.move(State.SOFT_EXECUTE, keep=True)
    return f"+OK {second.uuid}\n"


@command("uuid_hold")
def uuid_hold(switch: Switch, argument: str) -> str:
    """``[off|toggle] UUID``."""
    words = _words(argument)
    off = bool(words) and words[0].lower() == "off"
    channel = _channel(switch, words[-1]) if words else None
    if channel is not None:
        channel.endpoint.hold(not off)
    return "+OK Success\n"


# -- variables ---------------------------------------------------------------------------------------------


@command("uuid_getvar")
def uuid_getvar(switch: Switch, argument: str) -> str:
    """A variable's value or ``_undef_``."""
    words = _words(argument, 2)
    if not words:
        return "-USAGE: <uuid> <var>\n"
    channel = _channel(switch, words[0]) if words else None
    if channel is None:
        return NO_CHANNEL
    if len(words) < 2:
        return "-ERR No variable name specified!\n"
    return channel.lookup(words[1].strip()) or "_undef_"


@command("uuid_setvar")
def uuid_setvar(switch: Switch, argument: str) -> str:
    """``UUID NAME [VALUE]``."""
    words = _words(argument, 3)
    channel = _channel(switch, words[0]) if words else None
    if len(words) < 2:
        return "-USAGE: <uuid> <var> [value]\n"
    if channel is None:
        return NO_CHANNEL
    value = words[2] if len(words) > 2 else ""
    channel.set(words[1], "" if value == "undef" else value)
    return "+OK\n"


@command("uuid_setvar_multi")
def uuid_setvar_multi(switch: Switch, argument: str) -> str:
    """``UUID NAME=VALUE;NAME=VALUE``."""
    uuid, _, rest = argument.partition(" ")
    channel = _channel(switch, uuid)
    if not rest:
        return "-USAGE: <uuid> <var>=<value>;<var>=<value>...\n"
    if channel is None:
        return NO_CHANNEL
    for pair in strings.separate(rest, ";"):
        name, equals, value = pair.partition("=")
        if not name:
            return "-ERR No variable specified\n"
        channel.set(name.strip(), value if equals else "")
    return "+OK\n"


@command("uuid_dump")
def uuid_dump(switch: Switch, argument: str) -> str:
    """All that is known of a leg."""
    words = _words(argument)
    channel = _channel(switch, words[0]) if words else None
    if channel is None:
        return NO_CHANNEL
    event = switch.bus.stamp(Event("CHANNEL_DATA", channel))
    if len(words) > 1 and words[1] == "json":
        return event.json().decode("utf-8", "surrogateescape")
    return event.plain().decode("utf-8", "surrogateescape")


@command("global_getvar")
def global_getvar(switch: Switch, argument: str) -> str:
    """A variable of the switch, or all."""
    if argument.strip():
        return switch.globals.get(argument.strip(), "")
    return "".join(f"{name}={value}\n" for name, value in switch.globals.items())


@command("global_setvar")
def global_setvar(switch: Switch, argument: str) -> str:
    """``NAME=VALUE``."""
    name, _, value = argument.partition("=")
    switch.globals[name.strip()] = value
    return "+OK\n"


# -- what runs on a leg ------------------------------------------------------------------------------------


@command("uuid_broadcast")
def uuid_broadcast(switch: Switch, argument: str) -> str:
    """``UUID PATH|app::data [aleg|bleg|both]``."""
    words = _words(argument)
    if len(words) < 2:
        return "-USAGE: <uuid> <path> [aleg|bleg|holdb|both]\n"
    channel = _channel(switch, words[0])
    if channel is None:
        return "-ERR invalid uuid\n"
    which = words[2] if len(words) > 2 else "aleg"
    targets = [channel] if which in ("aleg", "both", "holdb") else []
    partner = channel.bonded()
    if which in ("bleg", "both") and partner is not None:
        targets.append(partner)
    for target in targets:
        path = words[1]
        app, marks, data = path.partition("::")
        if not marks:
            app, data = "playback", path
        target.queue_command(execute_command(app, data, lock=True))
    return "+OK Message sent\n"


@command("uuid_break")
def uuid_break(switch: Switch, argument: str) -> str:
    """``UUID [all]``: end what plays."""
    words = _words(argument)
    channel = _channel(switch, words[0]) if words else None
    if channel is None:
        return NO_CHANNEL
    channel.stop_playing(flush=len(words) > 1 and words[1].lower() == "all")
    return "+OK\n"


@command("uuid_record")
def uuid_record(switch: Switch, argument: str) -> str:
    """``UUID start|stop|mask|unmask|pause|resume PATH|all [LIMIT]``."""
    words = _words(argument)
    if len(words) < 3:
        return "-USAGE: <uuid> [start|stop|mask|unmask|pause|resume] <path> [<limit>] [<recording_vars>]\n"
    channel = _channel(switch, words[0])
    if channel is None:
        return "-ERR Cannot locate session!\n"
    action, path = words[1].lower(), words[2]
    if action == "start":
        limit = float(strings.number(words[3])) if len(words) > 3 else 0.0
        if not channel.media_ready or path in channel.recordings:
            return "-ERR Cannot record session!\n"
        channel.recordings[path] = Recording(channel, path, limit or None)
    elif action == "stop":
        found = [one for name, one in channel.recordings.items() if path in ("all", name)]
        if not found:
            return "-ERR Cannot stop record session!\n"
        for recording in found:
            recording.stop()
    return "+OK Success\n"


@command("uuid_send_dtmf")
def uuid_send_dtmf(switch: Switch, argument: str) -> str:
    """Digits to the far end."""
    words = _words(argument)
    if len(words) < 2:
        return "-USAGE: <uuid> <dtmf digits>[@<tone_duration>]\n"
    channel = _channel(switch, words[0])
    if channel is None:
        return "-ERR Cannot locate session!\n"
    for digit in words[1].split("@")[0]:
        channel.endpoint.digit(digit)
    return f"+OK {channel.uuid} sent DTMF {words[1]}.\n"


@command("uuid_recv_dtmf")
def uuid_recv_dtmf(switch: Switch, argument: str) -> str:
    """Digits as if the far end had sent them."""
    words = _words(argument)
    if len(words) < 2:
        return "-USAGE: <uuid> <dtmf digits>[@<tone_duration>]\n"
    channel = _channel(switch, words[0])
    if channel is None:
        return "-ERR Cannot locate session!\n"
    for digit in words[1].split("@")[0]:
        channel.queue_digit(digit, 2000, "APP")
    return f"+OK {channel.uuid} received DTMF {words[1]}.\n"


@command("uuid_flush_dtmf")
def uuid_flush_dtmf(switch: Switch, argument: str) -> str:
    """Forget digits that nobody read."""
    channel = _channel(switch, argument)
    if channel is None:
        return "-ERR No such session\n"
    channel.digits.clear()
    return "+OK\n"


@command("uuid_phone_event", "uuid_display", "uuid_media", "uuid_deflect", "uuid_audio", "uuid_simplify")
def accepted(switch: Switch, argument: str) -> str:
    """Accepted, with no effect here."""
    words = _words(argument)
    return "+OK Success\n" if words and _channel(switch, words[0]) else "-ERR Operation failed\n"


# -- later --------------------------------------------------------------------------------------------------


@command("sched_del")
def sched_del(switch: Switch, argument: str) -> str:
    """Take back tasks by number or group (a channel's UUID)."""
    return f"+OK Deleted: {switch.scheduler.cancel(argument.strip())}\n"


@command("sched_hangup")
def sched_hangup(switch: Switch, argument: str) -> str:
    """``+SECONDS UUID [CAUSE]``."""
    words = _words(argument)
    if len(words) < 2:
        return "-USAGE: [+]<time> <uuid> [<cause>]\n"
    channel = _channel(switch, words[1])
    if channel is None:
        return NO_CHANNEL
    cause = causes.parse(words[2]) if len(words) > 2 else "ALLOTTED_TIMEOUT"
    channel.schedule(words[0], "switch_ivr_schedule_hangup", channel.hangup, cause)
    return "+OK\n"


@command("sched_transfer")
def sched_transfer(switch: Switch, argument: str) -> str:
    """``+SECONDS UUID EXTENSION [DIALPLAN [CONTEXT]]``."""
    words = _words(argument)
    if len(words) < 3:
        return "-USAGE: [+]<time> <uuid> <extension> [<dialplan>] [<context>]\n"
    channel = _channel(switch, words[1])
    if channel is None:
        return NO_CHANNEL
    padded = [*words[2:], "", "", ""]
    channel.schedule(words[0], "switch_ivr_schedule_transfer", channel.transfer, padded[0], padded[1], padded[2])
    return "+OK\n"


@command("sched_api")
def sched_api(switch: Switch, argument: str) -> str:
    """``+SECONDS GROUP COMMAND ARGUMENT``."""
    words = argument.split(" ", 3)
    if len(words) < 3:
        return "-ERR Invalid syntax. USAGE: [+@]<time> <group_name> <command_string>[&]\n"
    name, argument = words[2], words[3] if len(words) > 3 else ""
    number = switch.scheduler.add(words[0], words[1], "api", lambda: switch.spawn_api(name, argument))
    return f"+OK Added: {number}\n"


# -- what is there ------------------------------------------------------------------------------------------


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
                "presence_data": "",
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


@command("show")
def show(switch: Switch, argument: str) -> str:
    """``channels|calls|registrations|tasks [count] [as json]``."""
    words = _words(argument)
    what = words[0].lower() if words else ""
    rows: list[dict[str, str]]
    if what == "channels":
        rows = _rows(switch)
        if len(words) > 2 and words[1].lower() == "like":
            rows = [row for row in rows if any(words[2].strip("%") in value for value in row.values())]
    elif what in ("calls", "bridged_calls", "detailed_calls"):
        legs = {row["uuid"]: row for row in _rows(switch)}
        rows = []
        for channel in switch.channels.values():
            partner = channel.partner
            if partner is not None and not channel.bridge_originator:
                continue
            row = dict(legs[channel.uuid])
            other = legs.get(partner.uuid) if partner else None
            row.update({f"b_{name}": other[name] if other else "" for name in row})
            if what == "calls" or partner is not None:
                rows.append(row)
    elif what == "registrations":
        rows = _registrations(switch)
    elif what == "tasks":
        rows = [
            {"task_id": str(task.number), "task_desc": task.name, "task_group": task.group}
            for task in switch.scheduler.tasks()
        ]
    elif what in ("application", "api", "modules", "codec", "endpoint"):
        names = switch.applications if what == "application" else _COMMANDS
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


def up_time(seconds: float) -> str:
    """A span as ``status`` says it."""
    micro = int(seconds * 1_000_000)
    seconds_, micro = divmod(micro, 1_000_000)
    milli, micro = divmod(micro, 1000)
    minutes, seconds_ = divmod(seconds_, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    years, days = divmod(days, 365)
    parts = [
        (years, "year"),
        (days, "day"),
        (hours, "hour"),
        (minutes, "minute"),
        (seconds_, "second"),
        (milli, "millisecond"),
        (micro, "microsecond"),
    ]
    return ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for n, name in parts)


@command("status")
def status(switch: Switch, argument: str) -> str:
    """How long it has been up, and with how much."""
    del argument
    count = len(switch.channels)
    return (
        f"UP {up_time(time.time() - switch.started)}\n"
        "FreeSWITCH (Version 1.11.1-release  64bit) is ready\n"
        f"{switch.sessions_since_startup} session(s) since startup\n"
        f"{count} session(s) - peak {switch.peak}, last 5min {switch.peak} \n"
        "0 session(s) per Sec out of max 1000, peak 0, last 5min 0 \n"
        "5000 session(s) max\n"
        "min idle cpu 0.00/90.00\n"
        "Current Stack Size/Max 240K/8192K\n"
    )


@command("version")
def version(switch: Switch, argument: str) -> str:
    """The version that the sandbox behaves like."""
    del switch, argument
    return "FreeSWITCH Version 1.11.1-release~64bit ( 64bit)\n"


@command("uptime")
def uptime(switch: Switch, argument: str) -> str:
    """In seconds."""
    unit = {"ms": 1000, "m": 1 / 60, "h": 1 / 3600, "d": 1 / 86400}.get(argument.strip(), 1)
    return f"{int((time.time() - switch.started) * unit)}\n"


@command("hostname")
def hostname(switch: Switch, argument: str) -> str:
    """Of the machine."""
    del argument
    return switch.bus.hostname


@command("switchname")
def switchname(switch: Switch, argument: str) -> str:
    """Of the switch."""
    del argument
    return switch.bus.switchname


@command("strepoch")
def strepoch(switch: Switch, argument: str) -> str:
    """Seconds since the epoch."""
    del switch
    if argument.strip():
        try:
            return str(int(time.mktime(time.strptime(argument.strip()[:19], "%Y-%m-%d %H:%M:%S"))))
        except ValueError:
            return "-ERR Invalid\n"
    return str(int(time.time()))


@command("strftime")
def strftime(switch: Switch, argument: str) -> str:
    """The time in a form."""
    del switch
    return time.strftime(argument.strip() or "%Y-%m-%d %T")


@command("create_uuid")
def create_uuid(switch: Switch, argument: str) -> str:
    """A new UUID."""
    del argument
    return switch.make_uuid()


@command("url_encode")
def encode(switch: Switch, argument: str) -> str:
    """As headers are escaped."""
    del switch
    return url_encode(argument)


@command("echo", "expand", "eval")
def echo(switch: Switch, argument: str) -> str:
    """The argument."""
    return strings.expand(argument, switch.globals.get, switch.api_text)


@command("reloadxml")
def reloadxml(switch: Switch, argument: str) -> str:
    """There is no XML."""
    del switch, argument
    return "+OK [Success]\n"


@command("reload", "load", "unload")
def reload(switch: Switch, argument: str) -> str:
    """Accepted; of ``mod_event_socket`` refused in silence while a session lives, as the original."""
    del switch, argument
    return "+OK Reloading XML\n+OK module loaded\n"


@command("module_exists")
def module_exists(switch: Switch, argument: str) -> str:
    """Those that the sandbox plays."""
    del switch
    known = (
        "mod_event_socket",
        "mod_sofia",
        "mod_dptools",
        "mod_commands",
        "mod_loopback",
        "mod_json_cdr",
        "mod_sndfile",
        "mod_tone_stream",
        "mod_conference",
    )
    return "true" if argument.strip() in known else "false"


@command("sofia_contact")
def sofia_contact(switch: Switch, argument: str) -> str:
    """A user's dial string."""
    user = argument.strip().split("/")[-1].split("@")[0]
    return switch.contact_string(user)


@command("sofia")
def sofia(switch: Switch, argument: str) -> str:
    """``status``, ``profile … rescan|reg``."""
    words = _words(argument)
    if words[:1] != ["status"]:
        return "+OK\n"
    if words[1:2] == ["gateway"] and len(words) > 2:
        gateway = switch.gateways.get(words[2].split("::")[-1])
        if gateway is None:
            return "Invalid Gateway!\n"
        state = "DOWN" if gateway.down else "UP"
        return f"Name    \t{gateway.name}\nProfile \texternal\nState   \tNOREG\nStatus  \t{state}\n"
    line = "=" * 97
    rows = [
        ("127.0.0.1", "alias", "internal", "ALIASED"),
        ("external", "profile", "sip:mod_sofia@127.0.0.1:5080", "RUNNING (0)"),
        *((f"external::{name}", "gateway", "sip:rig@127.0.0.1:5090", "NOREG") for name in switch.gateways),
        ("internal", "profile", "sip:mod_sofia@127.0.0.1:5060", "RUNNING (0)"),
    ]
    head = f"{'Name':>25}\t{'Type':>7}\t{'Data':>42}\tState\n"
    body = "".join(f"{name:>25}\t{kind:>7}\t{data:>42}\t{state}\n" for name, kind, data, state in rows)
    return f"{head}{line}\n{body}{line}\n2 profiles 1 alias\n"


@command("fsctl")
def fsctl(switch: Switch, argument: str) -> str:
    """``hupall``, ``ready_check`` and what is merely accepted."""
    words = _words(argument)
    if words[:1] == ["hupall"]:
        hupall(switch, " ".join(words[1:]))
    return "+OK\n"


@command("log", "console", "bgapi")
def logged(switch: Switch, argument: str) -> str:
    """Accepted."""
    del switch, argument
    return "+OK\n"
