"""Values that try to get out of their place in a dial string, and settings with one dial string for each number."""

from __future__ import annotations

from dataclasses import replace

from esl_apps import testing
from esl_apps.core.dialstring import Endpoints

SETTINGS = replace(testing.SETTINGS, endpoints=Endpoints("user/{number}@127.0.0.1", ("sofia/gateway/pstn/{number}",)))

ATTACKS = (
    "'a}sofia/gateway/gw/0900123456 ",
    "a}[x=1]sofia/gateway/gw/0900",
    "},user/1001",
    "a|b",
    "a,b",
    "a:_:b",
    "!b=2",
    "^^:a=1",
    "${system(id)}",
    "$${domain}",
    "\\'",
    '"',
    "'",
    "\n\napi hupall",
    "\r",
    "\0",
    "<a=1>",
    "[leg_timeout=1]",
    "%7D",
    "%0A",
    "{",
    "}",
    " &park()",
    "é",
    "\u2028",
    "=",
    ";",
)
