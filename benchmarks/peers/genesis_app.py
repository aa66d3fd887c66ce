"""genesis' outbound server and session, used as in its documentation."""

import asyncio
import sys
from typing import Any

from genesis import Outbound

WELCOME = "/usr/share/freeswitch/sounds/en/us/callie/ivr/8000/ivr-welcome.wav"


async def handle(session: Any) -> None:
    digits: list[str] = []
    entered, ended = asyncio.Event(), asyncio.Event()

    @session.channel.on_dtmf()  # type: ignore[untyped-decorator]
    async def on_dtmf(digit: str) -> None:
        digits.append(digit)
        if len(digits) == 4:
            entered.set()

    async def on_hangup_complete(_event: object) -> None:
        ended.set()

    session.on("CHANNEL_HANGUP_COMPLETE", on_hangup_complete)
    await session.sendmsg("execute", "answer", block=True)
    await session.channel.playback(WELCOME)
    second = asyncio.create_task(session.channel.playback(WELCOME))
    await entered.wait()
    assert "".join(digits) == "4821"
    await session.send(f"api uuid_break {session.uuid} all")
    await second
    await session.sendmsg("execute", "bridge", "user/1000", block=True)
    await session.channel.hangup()
    await ended.wait()
    await session.send("exit")


if __name__ == "__main__":
    asyncio.run(Outbound(handle, "127.0.0.1", int(sys.argv[1])).start())
