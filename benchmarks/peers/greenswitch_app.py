"""greenswitch's outbound server and session, used as in its README."""

from gevent import monkey

monkey.patch_all()

import sys
from typing import Any

import gevent.event
import greenswitch

WELCOME = "/usr/share/freeswitch/sounds/en/us/callie/ivr/8000/ivr-welcome.wav"


class Application:
    def __init__(self, session: Any) -> None:
        self.session = session
        self.digits = ""
        self.entered = gevent.event.Event()
        self.ended = gevent.event.Event()

    def on_dtmf(self, event: Any) -> None:
        self.digits += event.headers["DTMF-Digit"]
        if len(self.digits) == 4:
            self.entered.set()

    def on_hangup_complete(self, _event: object) -> None:
        self.ended.set()

    def run(self) -> None:
        session = self.session
        session.register_handle("DTMF", self.on_dtmf)
        session.register_handle("CHANNEL_HANGUP_COMPLETE", self.on_hangup_complete)
        session.myevents()
        session.linger()
        session.call_command("answer", block=True)
        session.playback(WELCOME)
        played: gevent.event.AsyncResult[object] = gevent.event.AsyncResult()
        session.register_expected_event("CHANNEL_EXECUTE_COMPLETE", "current_application", "playback", played)
        session.playback(WELCOME, block=False)
        self.entered.wait()
        assert self.digits == "4821"
        session.uuid_break()
        played.get()
        session.bridge("user/1000")
        session.hangup()
        self.ended.wait()
        session.stop()


if __name__ == "__main__":
    port = int(sys.argv[1])
    greenswitch.OutboundESLServer("127.0.0.1", port, application=Application, max_connections=100_000).listen()
