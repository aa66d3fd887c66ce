"""Commands that place, move, join and end calls."""

from __future__ import annotations

from esl_apps.sandbox.commands.registry import NO_CHANNEL, channel_of, command, leg_command, words_of
from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.leg.state import State
from esl_apps.sandbox.run.originate import Attempt
from esl_apps.sandbox.switch import Switch
from esl_apps.sandbox.wire import causes, strings


@command("originate")
def originate(switch: Switch, argument: str) -> str:
    """``A &app(data)`` or ``A EXTENSION [DIALPLAN [CONTEXT [NAME [NUMBER [TIMEOUT]]]]]``."""
    words = words_of(argument)
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
    channel = channel_of(switch, uuid)
    if channel is None:
        return NO_CHANNEL
    channel.hangup(causes.parse(cause) if cause else "NORMAL_CLEARING")
    return "+OK\n"


@command("hupall")
def hupall(switch: Switch, argument: str) -> str:
    """End all legs, or those with a certain value of a variable."""
    words = words_of(argument)
    cause = causes.parse(words[0], "MANAGER_REQUEST") if words else "MANAGER_REQUEST"
    # Newest first, so mostly the callee before the caller. FreeSWITCH's order is a hash table's.
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
    """Return whether a leg exists."""
    return "true" if channel_of(switch, argument) else "false"


@leg_command("uuid_answer", missing="-ERROR\n")
def uuid_answer(channel: Channel, _words: list[str]) -> str:
    """Answer a caller."""
    channel.answer()
    return "+OK\n"


@leg_command("uuid_pre_answer", missing="-ERROR\n")
def uuid_pre_answer(channel: Channel, _words: list[str]) -> str:
    """Give a caller early media."""
    channel.pre_answer()
    return "+OK\n"


@leg_command("uuid_transfer", least=2, usage="<uuid> [-bleg|-both] <dest-exten> [<dialplan>] [<context>]")
def uuid_transfer(channel: Channel, words: list[str]) -> str:
    """``UUID [-bleg|-both] EXTENSION [DIALPLAN [CONTEXT]]``."""
    targets = [channel]
    if words[0] in ("-bleg", "-both"):
        partner = channel.bonded()
        targets = [*([channel] if words[0] == "-both" else []), *([partner] if partner else [])]
        words = words[1:]
    padded = [*words, "", "", ""]
    for target in targets:
        target.transfer(padded[0], padded[1], padded[2])
    return "+OK\n"


@command("uuid_dual_transfer")
def uuid_dual_transfer(switch: Switch, argument: str) -> str:
    """``UUID EXTENSION[/DIALPLAN[/CONTEXT]] EXTENSION[/DIALPLAN[/CONTEXT]]``: the second is for the other leg.

    That one moves first. If the bridge runs in its thread, FreeSWITCH's UUID hangs up if it sees the end of the bridge
    before it is moved: seldom there, always here.
    """
    words = words_of(argument)
    if len(words) != 3:
        return (
            "-USAGE: <uuid> <A-dest-exten>[/<A-dialplan>][/<A-context>] <B-dest-exten>[/<B-dialplan>][/<B-context>]\n"
        )
    channel = channel_of(switch, words[0])
    if channel is None:
        return NO_CHANNEL
    partner = channel.bonded()
    if partner is not None and channel.running_state is State.EXCHANGE_MEDIA:
        channel.hangup("NORMAL_CLEARING")
    for target, where in ((partner, words[2]), (channel, words[1])):
        if target is not None:
            extension, dialplan, context = [*where.split("/"), "", ""][:3]
            target.transfer(extension, dialplan, context)
    return "+OK\n"


@leg_command("uuid_park")
def uuid_park(channel: Channel, _words: list[str]) -> str:
    """Park a leg."""
    channel.move(State.PARK)
    return "+OK\n"


@command("uuid_bridge")
def uuid_bridge(switch: Switch, argument: str) -> str:
    """Join two legs."""
    words = words_of(argument)
    if len(words) != 2:
        return "-USAGE: <uuid> <other_uuid>\n"
    first, second = channel_of(switch, words[0]), channel_of(switch, words[1])
    if first is None or second is None or first.down or second.down:
        return "-ERR Invalid uuid\n"
    first.pending_bridge = second
    second.move(State.HIBERNATE)
    first.move(State.SOFT_EXECUTE, keep=True)
    return f"+OK {second.uuid}\n"


@command("uuid_hold")
def uuid_hold(switch: Switch, argument: str) -> str:
    """``[off|toggle] UUID``."""
    words = words_of(argument)
    off = bool(words) and words[0].lower() == "off"
    channel = channel_of(switch, words[-1]) if words else None
    if channel is not None:
        channel.endpoint.hold(not off)
    return "+OK Success\n"
