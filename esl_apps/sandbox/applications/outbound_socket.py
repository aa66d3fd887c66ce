"""``socket``: the outbound event socket."""

from __future__ import annotations

from typing import Any

import gevent

from esl_apps.sandbox.applications.registry import application
from esl_apps.sandbox.doors.connection import connect
from esl_apps.sandbox.doors.listener import Listener
from esl_apps.sandbox.leg.channel import Channel
from esl_apps.sandbox.wire import strings


@application("socket")
def socket(channel: Channel, data: str) -> None:
    """Hand the channel to an application: ``host:port/path|host:port/path async full``."""
    words = data.split(" ")
    flags = {word.lower() for word in words[1:]}
    connection = _connect(channel, words[0])
    if connection is None:
        channel.switch.log.error("Socket Error!")
        return
    threaded = "async" in flags
    control = Listener(channel.switch, connection, channel, full="full" in flags, threaded=threaded)
    channel.listeners.append(control)
    gevent.spawn(control.serve)
    if not threaded:
        control.run_inline()
        return
    # Until ``connect``, only a hang-up or a transfer gets through, neither commands nor media.
    while channel.ready and not control.finished and not control.connected:
        channel.sleeper.sleep(None)
    # If the connection closed before this point, nothing will end the park. That is FreeSWITCH's own behaviour.
    if not (control.finished and control.served):
        channel.park()
    channel.parse_events()


def _connect(channel: Channel, targets: str) -> Any:
    port = 8084
    for host in targets.split("|"):
        if not host:
            continue
        name, colon, rest = host.rpartition(":")
        if not colon:
            name, rest = host, ""
        number, slash, path = rest.partition("/") if colon else ("", "", "")
        if colon:
            port = strings.number(number)
        else:
            name, slash, path = host.partition("/")
        if slash:
            channel.set("socket_path", path)
        channel.set("socket_host", name)
        try:
            return connect(name, port)
        except (OSError, UnicodeError, OverflowError) as error:
            channel.switch.log.error("Socket Error: %s", error)
    return None
