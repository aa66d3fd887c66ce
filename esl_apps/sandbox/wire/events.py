"""Events: their contents, their text, and which listener gets them.

An event is rendered only if a listener wants it, once per format. A channel has many headers that change rarely, so the
channel caches their text, which is joined here.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from esl_apps.sandbox.wire import wire
from esl_apps.sandbox.wire.event_names import SOURCES, WITH_VARIABLES

Headers = list[tuple[str, str]]


class Source(Protocol):
    """The channel of an event, whose state becomes headers."""

    uuid: str
    name: str

    def get(self, name: str) -> str | None:
        """Return a channel variable; the name's case doesn't matter."""

    def headers(self, variables: bool) -> Headers:
        """Return the channel's headers, with or without its variables."""

    def rendered(self, variables: bool) -> str:
        """Return the same as text."""


class Event:
    """One event: headers, and a channel whose headers come between them."""

    __slots__ = ("_frames", "_lookup", "after", "before", "body", "channel", "head", "name", "subclass")

    def __init__(
        self,
        name: str,
        channel: Source | None = None,
        before: Iterable[tuple[str, str]] = (),
        after: Iterable[tuple[str, str]] = (),
        *,
        subclass: str = "",
        body: str = "",
    ) -> None:
        self.name = name
        self.channel = channel
        self.before = before
        """Headers before the channel's."""
        self.after = after
        """Headers after the channel's."""
        self.subclass = subclass
        self.body = body
        self.head: Headers = []
        """The headers of every event. `Bus.stamp` appends them to a client's own."""
        self._frames: dict[str, bytes] = {}
        self._lookup: dict[str, str] | None = None

    def headers(self) -> Headers:
        """Return all headers, in order, unescaped."""
        channel = self.channel.headers(self.name in WITH_VARIABLES) if self.channel else []
        return [*self.head, *self.before, *channel, *self.after]

    def get(self, name: str) -> str | None:
        """Return a header's value. ``name`` is lower case; the header may be in any case."""
        if self._lookup is None:
            if self.channel is not None:
                # Filters ask for these, so don't collect 150 headers for them.
                if name == "unique-id":
                    return self.channel.uuid
                if name.startswith("variable_"):
                    if self.name not in WITH_VARIABLES:
                        return None
                    return self.channel.get(name[9:])
                if name == "channel-name":
                    return self.channel.name
            self._lookup = {}
            for key, value in self.headers():
                self._lookup.setdefault(key.lower(), value)
        return self._lookup.get(name)

    def plain(self) -> bytes:
        """Return the event as text, header by header, with escaped values."""
        encode = wire.url_encode
        lines = [f"{name}: {encode(value)}\n" for name, value in self.head]
        lines += [f"{name}: {encode(value)}\n" for name, value in self.before]
        if self.channel is not None:
            lines.append(self.channel.rendered(self.name in WITH_VARIABLES))
        lines += [f"{name}: {encode(value)}\n" for name, value in self.after]
        if self.body:
            body = wire.raw(self.body)
            return wire.raw("".join(lines)) + b"Content-Length: %d\n\n%s" % (len(body), body)
        lines.append("\n")
        return wire.raw("".join(lines))

    def json(self) -> bytes:
        """Return the event as one JSON object of strings."""
        fields: dict[str, object] = {}
        for name, value in self.headers():
            fields[name] = value[7:].split("|:") if value.startswith("ARRAY::") else value
        if self.body:
            fields["Content-Length"] = str(len(wire.raw(self.body)))
            fields["_body"] = self.body
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")

    def frame(self, kind: str) -> bytes:
        """Return the whole frame for listeners of a format, which is made once."""
        frame = self._frames.get(kind)
        if frame is None:
            frame = wire.event_frame(kind, self.json() if kind == "json" else self.plain())
            self._frames[kind] = frame
        return frame


class Subscriber(Protocol):
    """A connection that may want events."""

    subscription: Subscription

    def deliver(self, event: Event) -> None:
        """Queue the event for the client; must not block."""


class Subscription:
    """A listener's subscription: names, filters, ``myevents``."""

    __slots__ = ("enabled", "filters", "format", "names", "own", "subclasses", "uuid")

    def __init__(self, uuid: str | None = None) -> None:
        self.names: set[str] = set()
        self.subclasses: set[str] = set()
        self.filters: list[tuple[str, str]] = []
        self.format = "plain"
        self.enabled = False
        self.own = False
        """The listener sent ``myevents``."""
        self.uuid = uuid
        """The session that the listener controls, if any."""

    def wants(self, event: Event) -> bool:
        """Decide as FreeSWITCH does: by names, then filters (positive ones are ORed), then myevents."""
        if not self.enabled:
            return False
        if "ALL" not in self.names:
            if event.name not in self.names:
                return False
            if event.name == "CUSTOM" and event.subclass and event.subclass not in self.subclasses:
                return False
        if self.filters and not self._passes(event):
            return False
        if self.own and event.get("unique-id") != self.uuid:
            return bool(self.uuid) and event.get("job-owner-uuid") == self.uuid
        return True

    def _passes(self, event: Event) -> bool:
        send = False
        for name, value in self.filters:
            actual = event.get(name.lower())
            if actual is None:
                continue
            wanted = value.lstrip("+- ")
            signs = value[: len(value) - len(wanted)]
            positive = not (signs.strip(" ") and signs.strip(" ")[-1] == "-")
            if send and positive:
                continue
            match = bool(_regex(wanted).search(actual)) if value.startswith("/") else actual.lower() == wanted.lower()
            if match:
                if not positive:
                    return False
                send = True
        return send

    def keys(self) -> set[tuple[str, str]] | None:
        """Return header pairs of which an event must have one to be wanted; None if unknown."""
        if self.filters:
            positive = [(name, value) for name, value in self.filters if not value.startswith("-")]
            if any(value[:1] in ("/", "+", " ", "") for _, value in positive):
                return None
            return {(name.lower(), value.lower()) for name, value in positive}
        if self.own and self.uuid:
            return {("unique-id", self.uuid), ("job-owner-uuid", self.uuid)}
        return None


def _regex(pattern: str) -> re.Pattern[str]:
    match = re.fullmatch(r"/(.*)/(\w*)", pattern, re.DOTALL)
    source, flags = (match[1], match[2]) if match else (pattern, "")
    try:
        return re.compile(source, re.IGNORECASE if "i" in flags else 0)
    except re.error:
        return re.compile(r"(?!)")


class Bus:
    """Every event passes here on its way to the listeners."""

    def __init__(self, hostname: str, switchname: str, core_uuid: str) -> None:
        self.sequence = 0
        self.core_uuid = core_uuid
        self.hostname = hostname
        self.switchname = switchname
        self.clock: Callable[[], float] = time.time
        self._constant: Headers = [
            ("Core-UUID", core_uuid),
            ("FreeSWITCH-Hostname", hostname),
            ("FreeSWITCH-Switchname", switchname),
            ("FreeSWITCH-IPv4", "127.0.0.1"),
            ("FreeSWITCH-IPv6", "::1"),
        ]
        self._wanted: Counter[str] = Counter()
        self._open: list[Subscriber] = []
        self._keyed: dict[str, dict[str, list[Subscriber]]] = {}
        self._places: dict[Subscriber, tuple[frozenset[str], frozenset[tuple[str, str]] | None]] = {}
        self._second = (0, "", "")

    def subscribe(self, listener: Subscriber) -> None:
        """Add a listener, or note that its subscription changed."""
        self.unsubscribe(listener)
        subscription = listener.subscription
        if not subscription.enabled:
            return
        names = frozenset(subscription.names)
        keys = subscription.keys()
        self._places[listener] = (names, frozenset(keys) if keys is not None else None)
        self._wanted.update(names)
        if keys is None:
            self._open.append(listener)
        else:
            for name, value in keys:
                self._keyed.setdefault(name, {}).setdefault(value, []).append(listener)

    def unsubscribe(self, listener: Subscriber) -> None:
        """Forget a listener."""
        place = self._places.pop(listener, None)
        if place is None:
            return
        names, keys = place
        self._wanted.subtract(names)
        if keys is None:
            self._open.remove(listener)
            return
        for name, value in keys:
            values = self._keyed[name]
            values[value].remove(listener)
            if not values[value]:
                del values[value]
            if not values:
                del self._keyed[name]

    def wanted(self, name: str) -> bool:
        """Whether any listener asked for this name. If not, the event needn't be made."""
        return self._wanted[name] > 0 or self._wanted["ALL"] > 0

    def stamp(self, event: Event, source: tuple[str, str, int] | None = None) -> Event:
        """Add the headers that all events have."""
        self.sequence += 1
        now = self.clock()
        second = int(now)
        if second != self._second[0]:
            local, utc = time.localtime(second), time.gmtime(second)
            self._second = (
                second,
                time.strftime("%Y-%m-%d %H:%M:%S", local),
                time.strftime("%a, %d %b %Y %H:%M:%S GMT", utc),
            )
        _, local_text, gmt_text = self._second
        file, function, line = source or SOURCES.get(event.name, ("switch_core.c", "sandbox", 1))
        subclass = [("Event-Subclass", event.subclass)] if event.subclass else []
        event.head = [
            *event.head,
            *subclass,
            ("Event-Name", event.name),
            *self._constant,
            ("Event-Date-Local", local_text),
            ("Event-Date-GMT", gmt_text),
            ("Event-Date-Timestamp", str(int(now * 1_000_000))),
            ("Event-Calling-File", file),
            ("Event-Calling-Function", function),
            ("Event-Calling-Line-Number", str(line)),
            ("Event-Sequence", str(self.sequence)),
        ]
        return event

    def fire(self, event: Event, source: tuple[str, str, int] | None = None) -> None:
        """Deliver an event to the listeners that want it."""
        if not self.wanted(event.name):
            self.sequence += 1
            return
        self.stamp(event, source)
        self.publish(event)

    def publish(self, event: Event) -> None:
        """Deliver an event that has its headers."""
        for listener in self._candidates(event):
            if listener.subscription.wants(event):
                listener.deliver(event)

    def _candidates(self, event: Event) -> list[Subscriber]:
        candidates = list(self._open)
        seen: set[int] = set()
        for name, values in self._keyed.items():
            value = event.get(name)
            if value is None:
                continue
            for listener in values.get(value.lower(), ()):
                if id(listener) not in seen:
                    seen.add(id(listener))
                    candidates.append(listener)
        return candidates
