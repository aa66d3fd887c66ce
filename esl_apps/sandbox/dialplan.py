"""Routes, in the shape of the shipped dialplan, and the extension that speaks when no node does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .channel import Channel

Actions = list[tuple[str, str]]

UNAVAILABLE: Actions = [
    ("pre_answer", ""),
    ("playback", "tone_stream://%(1500,0,620)"),
    ("hangup", "NORMAL_TEMPORARY_FAILURE"),
]


class Dialplan:
    """Context → number → actions. A number may be a regular expression, written ``^…$``."""

    def __init__(self) -> None:
        self.routes: dict[str, dict[str, Actions]] = {}
        self.reset()

    def reset(self) -> None:
        """Only what is always there."""
        self.routes = {
            context: {"esl_apps_unavailable": list(UNAVAILABLE)} for context in ("public", "default")
        }

    def add(self, context: str, number: str, actions: Iterable[tuple[str, str]]) -> None:
        """Route a number; a later route for the same number replaces it."""
        if number.startswith("^"):
            re.compile(number)
        self.routes.setdefault(context, {})[number] = [(app, data) for app, data in actions]

    def socket(self, number: str, path: str, node: str, contexts: Iterable[str] = ("public", "default")) -> None:
        """Route a number to an application as the shipped dialplan does: the watchdog before, the
        unavailable extension after."""
        targets = "|".join(f"{one}/{path.lstrip('/')}" for one in node.split("|"))
        for context in contexts:
            self.add(
                context,
                number,
                [
                    ("sched_transfer", f"+8 esl_apps_unavailable XML {context}"),
                    ("socket", f"{targets} async full"),
                    ("sched_cancel", ""),
                    ("transfer", f"esl_apps_unavailable XML {context}"),
                ],
            )

    def lookup(self, channel: Channel, context: str, number: str) -> Actions | None:
        """The actions for a channel; None: no route."""
        routes = self.routes.get(context)
        if routes is None:
            return None
        found = routes.get(number)
        if found is None:
            for pattern, actions in routes.items():
                if pattern.startswith("^") and (match := re.search(pattern, number)):
                    if match.groups():
                        groups = [match[0], *(one or "" for one in match.groups())]
                        channel.set("DP_MATCH", "ARRAY::" + "|:".join(groups))
                    found = [
                        (app, re.sub(r"\$(\d)", lambda m, g=match: g[int(m[1])] or "", data))  # type: ignore[misc]
                        for app, data in actions
                    ]
                    break
        if found is None and context == "default" and channel.switch.directory_has(number):
            # The stock dialplan's local extensions.
            return [("set", "hangup_after_bridge=true"), ("bridge", f"user/{number}@{channel.switch.domain}")]
        return found
