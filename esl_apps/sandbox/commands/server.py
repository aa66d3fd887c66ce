"""Commands about the switch itself."""

from __future__ import annotations

import hashlib
import os
import time

from esl_apps.sandbox.commands.calls import hupall
from esl_apps.sandbox.commands.registry import command, words_of
from esl_apps.sandbox.switch import Switch, up_time
from esl_apps.sandbox.wire import strings
from esl_apps.sandbox.wire.wire import url_encode


@command("status")
def status(switch: Switch, argument: str) -> str:
    """Return the uptime and the session counts."""
    del argument
    count = len(switch.channels)
    return (
        f"UP {up_time(time.time() - switch.started)}\n"
        "FreeSWITCH (Version 1.11.1-release  64bit) is ready\n"
        f"{switch.sessions_since_startup} session(s) since startup\n"
        f"{count} session(s) - peak {switch.peak}, last 5min {switch.peak} \n"
        "0 session(s) per Sec out of max 1000, peak 0, last 5min 0 \n"
        f"{switch.limits.most} session(s) max\n"
        "min idle cpu 0.00/90.00\n"
        "Current Stack Size/Max 240K/8192K\n"
    )


@command("version")
def version(switch: Switch, argument: str) -> str:
    """Return the version that the sandbox imitates."""
    del switch, argument
    return "FreeSWITCH Version 1.11.1-release~64bit ( 64bit)\n"


@command("uptime")
def uptime(switch: Switch, argument: str) -> str:
    """Return the uptime in seconds."""
    unit = {"ms": 1000, "m": 1 / 60, "h": 1 / 3600, "d": 1 / 86400}.get(argument.strip(), 1)
    return f"{int((time.time() - switch.started) * unit)}\n"


@command("hostname")
def hostname(switch: Switch, argument: str) -> str:
    """Return the machine's name."""
    del argument
    return switch.bus.hostname


@command("switchname")
def switchname(switch: Switch, argument: str) -> str:
    """Return the switch's name."""
    del argument
    return switch.bus.switchname


@command("strepoch")
def strepoch(switch: Switch, argument: str) -> str:
    """Return seconds since the epoch."""
    del switch
    if argument.strip():
        try:
            return str(int(time.mktime(time.strptime(argument.strip()[:19], "%Y-%m-%d %H:%M:%S"))))
        except ValueError:
            return "-ERR Invalid\n"
    return str(int(time.time()))


@command("strftime")
def strftime(switch: Switch, argument: str) -> str:
    """Return the time in a format."""
    del switch
    return time.strftime(argument.strip() or "%Y-%m-%d %T")


@command("create_uuid")
def create_uuid(switch: Switch, argument: str) -> str:
    """Return a new UUID."""
    del argument
    return switch.make_uuid()


@command("url_encode")
def encode(switch: Switch, argument: str) -> str:
    """Escape text as in headers."""
    del switch
    return url_encode(argument)


@command("echo", "eval")
def echo(switch: Switch, argument: str) -> str:
    """Return the argument, expanded."""
    return strings.expand(argument, switch.globals.get, switch.api_text)


@command("expand")
def expand(switch: Switch, argument: str) -> str:
    """Expand a command, then run it."""
    name, _, rest = strings.expand(argument, switch.globals.get, switch.api_text).partition(" ")
    return switch.api_text(name, rest)


@command("md5")
def md5(switch: Switch, argument: str) -> str:
    """Return the MD5 of a text in hexadecimal digits."""
    del switch
    return hashlib.md5(argument.encode(), usedforsecurity=False).hexdigest()


@command("file_exists")
def file_exists(switch: Switch, argument: str) -> str:
    """Return whether the switch can read a file."""
    return "true" if os.path.exists(argument) else "false"


@command("reloadxml")
def reloadxml(switch: Switch, argument: str) -> str:
    """Accepted: the sandbox has no XML to read."""
    del switch, argument
    return "+OK [Success]\n"


@command("reload", "load", "unload")
def reload(switch: Switch, argument: str) -> str:
    """Accepted, with no effect. (FreeSWITCH also says +OK when it refuses to reload ``mod_event_socket``.)"""
    del switch, argument
    return "+OK Reloading XML\n+OK module loaded\n"


@command("module_exists")
def module_exists(switch: Switch, argument: str) -> str:
    """Return whether the sandbox imitates a module."""
    del switch
    modules = (
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
    return "true" if argument.strip() in modules else "false"


@command("sofia_contact")
def sofia_contact(switch: Switch, argument: str) -> str:
    """Return a user's dial string."""
    user = argument.strip().split("/")[-1].split("@")[0]
    return switch.contact_string(user)


@command("sofia")
def sofia(switch: Switch, argument: str) -> str:
    """``status``, ``profile … rescan|reg``."""
    words = words_of(argument)
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
    """Run ``hupall``, ``max_sessions`` and ``sps``; accept the rest."""
    match words_of(argument):
        case ["hupall", *more]:
            hupall(switch, " ".join(more))
        case ["max_sessions", number, *_]:
            # 0 asks, and sets nothing.
            switch.limits.most = strings.number(number) or switch.limits.most
            return f"+OK max sessions: {switch.limits.most}\n"
        case ["sps", number, *_]:
            switch.limits.per_second = strings.number(number) or switch.limits.per_second
            return f"+OK sessions per second: {switch.limits.per_second}\n"
    return "+OK\n"


@command("log", "console", "bgapi")
def logged(switch: Switch, argument: str) -> str:
    """Accepted."""
    del switch, argument
    return "+OK\n"
