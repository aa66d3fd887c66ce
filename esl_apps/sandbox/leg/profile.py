"""The caller profile: the parties and the times of a leg, as events and CDRs show them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from esl_apps.sandbox.wire.wire import url_encode

TIMES = (
    ("Profile-Created-Time", "profile_created"),
    ("Channel-Created-Time", "created"),
    ("Channel-Answered-Time", "answered"),
    ("Channel-Progress-Time", "progress"),
    ("Channel-Progress-Media-Time", "progress_media"),
    ("Channel-Hangup-Time", "hungup"),
    ("Channel-Transfer-Time", "transferred"),
    ("Channel-Resurrect-Time", "resurrected"),
    ("Channel-Bridged-Time", "bridged"),
    ("Channel-Last-Hold", "last_hold"),
    ("Channel-Hold-Accum", "hold_accum"),
)


@dataclass
class Times:
    """Microseconds since the epoch; 0 if it hasn't happened."""

    profile_created: int = 0
    created: int = 0
    answered: int = 0
    progress: int = 0
    progress_media: int = 0
    hungup: int = 0
    transferred: int = 0
    resurrected: int = 0
    bridged: int = 0
    last_hold: int = 0
    hold_accum: int = 0


@dataclass
class CallerProfile:
    """Call `touch` after changing attributes: until then the headers' cached text is used."""

    direction: str = "inbound"
    logical_direction: str = "inbound"
    username: str = ""
    dialplan: str = ""
    caller_id_name: str = ""
    caller_id_number: str = ""
    orig_caller_id_name: str = ""
    orig_caller_id_number: str = ""
    callee_id_name: str = ""
    callee_id_number: str = ""
    network_addr: str = ""
    ani: str = ""
    aniii: str = ""
    destination_number: str = ""
    uuid: str = ""
    source: str = ""
    transfer_source: str = ""
    context: str = ""
    rdnis: str = ""
    chan_name: str = ""
    profile_index: str = ""
    screen: bool = True
    hide_name: bool = False
    hide_number: bool = False
    times: Times = field(default_factory=Times)
    _text: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def touch(self) -> None:
        """Drop the cached text, because an attribute changed."""
        self._text.clear()

    def stamp(self, name: str, when: int) -> None:
        """Set one of the times."""
        setattr(self.times, name, when)
        self._text.clear()

    def clone(self) -> CallerProfile:
        """Return a copy with its own times: a snapshot."""
        return replace(self, times=replace(self.times), _text={})

    def headers(self, prefix: str) -> list[tuple[str, str]]:
        """Return the headers under a prefix: ``Caller``, ``Channel`` or ``Other-Leg``."""
        name, number = self.caller_id_name, self.caller_id_number
        pairs = (
            ("Direction", self.direction),
            ("Logical-Direction", self.logical_direction),
            ("Username", self.username),
            ("Dialplan", self.dialplan),
            ("Caller-ID-Name", name),
            ("Caller-ID-Number", number),
            # FreeSWITCH shows these only if the current ones are present.
            ("Orig-Caller-ID-Name", self.orig_caller_id_name if name else ""),
            ("Orig-Caller-ID-Number", self.orig_caller_id_number if number else ""),
            ("Callee-ID-Name", self.callee_id_name),
            ("Callee-ID-Number", self.callee_id_number),
            ("Network-Addr", self.network_addr),
            ("ANI", self.ani),
            ("ANI-II", self.aniii),
            ("Destination-Number", self.destination_number),
            ("Unique-ID", self.uuid),
            ("Source", self.source),
            ("Transfer-Source", self.transfer_source),
            ("Context", self.context),
            ("RDNIS", self.rdnis),
            ("Channel-Name", self.chan_name),
            ("Profile-Index", self.profile_index),
        )
        headers = [(f"{prefix}-{key}", value) for key, value in pairs if value]
        headers += [(f"{prefix}-{key}", str(getattr(self.times, attribute))) for key, attribute in TIMES]
        headers.append((f"{prefix}-Screen-Bit", "true" if self.screen else "false"))
        headers.append((f"{prefix}-Privacy-Hide-Name", "true" if self.hide_name else "false"))
        headers.append((f"{prefix}-Privacy-Hide-Number", "true" if self.hide_number else "false"))
        return headers

    def rendered(self, prefix: str) -> str:
        """Return the headers' text, escaped."""
        text = self._text.get(prefix)
        if text is None:
            text = "".join(f"{name}: {url_encode(value)}\n" for name, value in self.headers(prefix))
            self._text[prefix] = text
        return text
