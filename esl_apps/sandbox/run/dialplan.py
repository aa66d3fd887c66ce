"""Routes like those of the shipped dialplan, and the extension for callers whom no node serves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree

from esl_apps.sandbox.protocols import Leg

Actions = list[tuple[str, str]]

UNAVAILABLE: Actions = [
    ("pre_answer", ""),
    ("playback", "tone_stream://%(1500,0,620)"),
    ("hangup", "NORMAL_TEMPORARY_FAILURE"),
]


def _filled(data: str, match: re.Match[str]) -> str:
    """Replace ``$1`` and so on by the expression's groups."""
    return re.sub(r"\$(\d)", lambda digit: match[int(digit[1])] or "", data)


def inline(text: str) -> Actions:
    """Read an inline dialplan: ``app:data,app:data``, or ``m:^:app:data^app:data`` with another separator."""
    between = ","
    if text.startswith("m:") and text[3:4] == ":":
        between, text = text[2], text[4:]
    return [(app, data) for app, _, data in (part.partition(":") for part in text.split(between))]


@dataclass(frozen=True)
class _Condition:
    """A ``<condition>``. An empty field always holds."""

    field: str
    expression: re.Pattern[str]
    actions: Actions
    anti_actions: Actions
    stops_on: bool | None
    """The outcome that ends the extension (``break``); None if none does."""


class _Extension:
    """An ``<extension>`` of an XML dialplan, as far as the conditions of DIDs need mod_dialplan_xml."""

    def __init__(self, element: ElementTree.Element) -> None:
        self.goes_on = element.get("continue") == "true"
        self.conditions = [
            _Condition(
                condition.get("field") or "",
                re.compile(condition.get("expression") or ""),
                [(action.get("application") or "", action.get("data") or "") for action in condition.findall("action")],
                [
                    (action.get("application") or "", action.get("data") or "")
                    for action in condition.findall("anti-action")
                ],
                {"never": None, "on-true": True}.get(condition.get("break") or "", False),
            )
            for condition in element.findall("condition")
        ]

    def actions(self, channel: Leg) -> tuple[bool, Actions]:
        """Return whether the last condition checked held, and the actions to run."""
        held, actions = False, []
        for condition in self.conditions:
            field = condition.field
            value = channel.expand(field) if "${" in field else channel.lookup(field) if field else ""
            match = condition.expression.search(value or "")
            held = match is not None
            for app, data in condition.actions if held else condition.anti_actions:
                actions.append((app, _filled(data, match) if match else data))
            if held is condition.stops_on:
                break
        return held, actions


class Dialplan:
    """Context → number → actions. A number may be a regular expression, written ``^…$``.

    A context may also have extensions in XML, as in a FreeSWITCH's folder. They come first.
    """

    def __init__(self) -> None:
        self.routes: dict[str, dict[str, Actions]] = {}
        self._extensions: dict[str, list[_Extension]] = {}
        self.reset()

    def load(self, context: str, text: str) -> None:
        """Add the ``<extension>``s of a file. :raises ElementTree.ParseError: it isn't XML."""
        elements = ElementTree.fromstring(text).iter("extension")  # noqa: S314 - the operator's own file
        self._extensions.setdefault(context, []).extend(map(_Extension, elements))

    def reset(self) -> None:
        """Keep only the routes that always exist."""
        self.routes = {context: {"esl_apps_unavailable": list(UNAVAILABLE)} for context in ("public", "default")}

    def add(self, context: str, number: str, actions: Iterable[tuple[str, str]]) -> None:
        """Route a number; a later route for the same number replaces it."""
        if number.startswith("^"):
            re.compile(number)
        self.routes.setdefault(context, {})[number] = [(app, data) for app, data in actions]

    def socket(self, number: str, path: str, node: str, contexts: Iterable[str] = ("public", "default")) -> None:
        """Route a number to an application as the shipped dialplan does: the watchdog, the socket, the unavailable
        extension."""
        targets = "|".join(f"{host}/{path.lstrip('/')}" for host in node.split("|"))
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

    def refers(self, node: str) -> None:
        """Route what agents' phones transfer, as the shipped context does."""
        targets = "|".join(f"{host}/transfer/refer" for host in node.split("|"))
        self.add("esl_apps_refer", "esl_apps_refused", [("sched_cancel", "")])
        parting = "esl_apps_parting=${uuid_setvar(${signal_bond} hangup_after_bridge false)}"
        self.add("esl_apps_refer", "esl_apps_parting", [("set", parting)])
        served = [
            ("set", "api_hangup_hook=uuid_kill ${blind_transfer_uuid}"),
            ("sched_transfer", "+8 esl_apps_refused XML esl_apps_refer"),
            ("socket", f"{targets} async full"),
            ("sched_cancel", ""),
        ]
        self.add("esl_apps_refer", "^", served)

    def lookup(self, channel: Leg, context: str, number: str) -> Actions | None:
        """Return the actions for a channel; None if it has no route."""
        found_in_xml: Actions = []
        for extension in self._extensions.get(context, ()):
            held, more = extension.actions(channel)
            found_in_xml += more
            if held and not extension.goes_on:
                return found_in_xml
        routes = self.routes.get(context)
        if routes is None:
            return found_in_xml or None
        route = routes.get(number)
        if route is None:
            for pattern, actions in routes.items():
                if pattern.startswith("^") and (match := re.search(pattern, number)):
                    if match.groups():
                        groups = [match[0], *(group or "" for group in match.groups())]
                        channel.set("DP_MATCH", "ARRAY::" + "|:".join(groups))
                    route = [(app, _filled(data, match)) for app, data in actions]
                    break
        if route is None and context == "default" and channel.switch.directory_has(number):
            # The stock dialplan's local extensions.
            return [("set", "hangup_after_bridge=true"), ("bridge", f"user/{number}@{channel.switch.domain}")]
        return route
