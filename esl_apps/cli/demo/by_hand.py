"""``demo --keep``: what a person needs to go on by hand, as commands that work as printed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence

from esl_apps.cli.demo.script import CALLEE
from esl_apps.cli.demo.stage import DID, Stage

_AGENT = "1000"


def prepare(stage: Stage) -> None:
    """Give the phones time to be watched: each rings for two seconds, then answers."""
    stage.phone(_AGENT, answer_after=2, tone=500)
    stage.phone("1001", answer_after=2, tone=500)
    stage.phone(CALLEE, outside=True, answer_after=2, tone=900)


def access(stage: Stage) -> dict[str, str]:
    return {
        "api": f"http://{stage.api}",
        "token": stage.token,
        "admin": f"http://{stage.admin}",
        "admin_token": stage.admin_token,
        "console": f"http://{stage.admin}/console/",
        "phone": f"http://{stage.api}/phone/",
        "redis": stage.redis_url,
        "control": f"http://{stage.control}",
        "event_socket": stage.event_socket,
        "event_socket_password": stage.password,
    }


def instructions(stage: Stage) -> Iterator[str]:
    yield "Everything stays up until you press Ctrl-C."
    yield ""
    for name, value in access(stage).items():
        yield f"  {name.replace('_', ' '):<22} {value}"
    calls, control = f"http://{stage.api}/click2dial/calls", f"http://{stage.control}"
    bearer = f"curl -H 'Authorization: Bearer {stage.token}' \\"
    order = f"""'{{"agent":"{_AGENT}","callee":"{CALLEE}","outbound_id":"{DID}"}}'"""
    yield ""
    yield "Follow the calls in a browser: open the console, log in with the admin token."
    yield "The phone's page needs a real FreeSWITCH to register at."
    yield from _commands(
        f"Place a call. Phone {_AGENT} rings for 2 s and answers, then {CALLEE} does:",
        [bearer, "-H 'Content-Type: application/json' \\", f"{calls} \\", f"-d {order}"],
    )
    yield from _commands(
        "See the calls, and hang one up (put its call_ref in place of REF):",
        [bearer, calls],
        [bearer, f"-X DELETE {calls}/REF"],
    )
    yield from _commands("Pop the oldest record:", _pop(stage))
    yield from _commands(
        f"Let phone {_AGENT} ring until you decide:",
        [f"curl -X PATCH {control}/phones/{_AGENT} \\", """-d '{"script": {"answer_after": null}}'"""],
    )
    yield from _commands(
        "While it rings, answer or refuse it; later, hang it up:",
        [f"curl -X POST {control}/phones/{_AGENT}/answer"],
        [f"curl -X POST {control}/phones/{_AGENT}/reject -d '{{\"status\": 486}}'"],
        [f"curl -X POST {control}/phones/{_AGENT}/hangup"],
    )
    yield from _commands(
        "Call the agents from outside, as a customer would:",
        [f"curl {control}/phones/{CALLEE}/dial \\", f"""-d '{{"number": "{DID}"}}'"""],
    )
    yield from _commands("All that the phones can do:", [f"curl {control}/"])
    yield ""


def _pop(stage: Stage) -> list[str]:
    """A command with what this machine has."""
    if shutil.which("redis-cli"):
        return [f"redis-cli -u {stage.redis_url} BRPOP enigma:notifications:cdr 1"]
    return [
        f"{sys.executable} -c 'import redis; \\",
        f'r = redis.Redis.from_url("{stage.redis_url}"); \\',
        """print(r.brpop("enigma:notifications:cdr", 1))'""",
    ]


def _commands(title: str, *commands: Sequence[str]) -> Iterator[str]:
    yield ""
    yield title
    for first, *continued in commands:
        yield f"  {first}"
        for line in continued:
            yield f"       {line}"
