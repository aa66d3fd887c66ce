"""This project's event-socket layer: each wait notices hang-ups and has a time-out; events match by Event-UUID."""

from gevent import monkey

monkey.patch_all()

import sys

import gevent

from esl_apps.esl.server import OutboundServer
from esl_apps.esl.session import OutboundSession

EVENTS = (
    "CHANNEL_EXECUTE_COMPLETE DTMF CHANNEL_ANSWER CHANNEL_BRIDGE CHANNEL_UNBRIDGE "
    "CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE"
)
WELCOME = "/usr/share/freeswitch/sounds/en/us/callie/ivr/8000/ivr-welcome.wav"


def application(session: OutboundSession) -> None:
    digits: list[str] = []
    session.register_handle("DTMF", lambda event: digits.append(event.get("DTMF-Digit", "")))
    session.connect(events=EVENTS)
    session.finish(session.execute("answer"), 10)
    session.finish(session.execute("playback", WELCOME), 60)
    second = session.execute("playback", WELCOME)
    session.wait(lambda: len(digits) == 4, 10)
    assert "".join(digits) == "4821"
    session.api(f"uuid_break {session.uuid} all")
    session.finish(second, 5)
    session.finish(session.execute("bridge", "user/1000"), 7200)
    session.hangup()
    session.wait(lambda: session.hangup_complete is not None, 5, past_hangup=True)


if __name__ == "__main__":
    server = OutboundServer(("127.0.0.1", int(sys.argv[1])), application, max_connections=100_000)
    server.listen()
    gevent.get_hub().join()
