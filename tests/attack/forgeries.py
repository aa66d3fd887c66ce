"""INVITE fields that a caller writes, forged in the hope that something takes them for more than text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

ATTACKER, VICTIM = "0845550000", "27825556666"
"""The attacker's own number, which has no card, and the victim's, which has one."""
#: ``{file}`` is replaced by a path; a command that ran would create that file.
PAYLOADS: dict[str, str] = {
    "lf": f"{VICTIM}%0ACaller-Caller-ID-Number%3A%20{VICTIM}",
    "crlf": f"a%0D%0Avariable_sip_from_user%3A%20{VICTIM}%0D%0A%0D%0A",
    "lf-lower": f"a%0acaller-caller-id-number: {VICTIM}%0a%0aapi system touch {{file}}%0a%0a",
    "frame": "a%0A%0AContent-Type%3A%20api%2Fresponse%0AContent-Length%3A%200%0A%0A",
    "folded": f"a\r\n variable_esl_call_ref: {VICTIM}",
    "digits": "a%0Avariable_digits: 123456789%0AEvent-Name: CHANNEL_EXECUTE_COMPLETE%0AApplication-UUID: 2",
    "system": "${system(touch {file})}",
    "system-escaped": "%24%7Bsystem(touch%20{file})%7D",
    "api": "${originate(sofia/gateway/pstn/0900123456 &park)}${uuid_setvar(${uuid} esl_apps_canary 1)}",
    "variable": "${default_password}$${default_password}${sip_auth_password}",
    "separators": "a,b|c:_:d!e;f~g^^h=i",
    "braces": "}sofia/gateway/pstn/0900123456{a=[b]<c>",
    "quotes": "'\" \\' \\\" `touch {file}`",
    "long": "9" * 3000,
    "bytes": "\udcff\udcfe\udc80",
    "nul": f"%00{VICTIM}",
    "nul-raw": f"a\0{VICTIM}",
    "path": "../../../../etc/passwd%00.wav",
}

#: The attacker's own number, the only one that a record may name.
FROM = f"<sip:{ATTACKER}@127.0.0.1>"


@dataclass(frozen=True)
class Forgery:
    """An INVITE. ``number`` is ``{did}`` with additions."""

    name: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    sender: str = FROM
    number: str = "{did}"
    instead: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    claims: bool = False
    """It forges the From user itself, so the record may have the attacker's number or none."""


def fields(payload: str) -> Iterator[Forgery]:
    """Put the payload into every field that a caller writes."""
    token = payload.replace(" ", "%20")
    yield Forgery("from-user", sender=f"<sip:{token}@127.0.0.1>", claims=True)
    yield Forgery("from-display", sender=f'"{payload}" {FROM}')
    yield Forgery("from-params", sender=f"{FROM};x={token}")
    yield Forgery("from-uri-params", sender=f"<sip:{ATTACKER}@127.0.0.1;x={token}?y={token}>")
    yield Forgery("to-user", instead={"To": f'"{payload}" <sip:{token}@127.0.0.1;x={token}>'})
    yield Forgery("contact", instead={"Contact": f"<sip:{token}@127.0.0.1:9;x={token}>"})
    yield Forgery("uri-params", number=f"{{did}};x={token}")
    yield Forgery("uri-password", number=f"{{did}}:{token}")
    yield Forgery("uri-user", number=f"{{did}}{token}")
    yield Forgery("call-id", instead={"Call-ID": token.replace("\r\n%20", "")})
    yield Forgery("via", instead={"Via": f";x={token}"})
    address = f'"{payload}" <sip:{token}@127.0.0.1>'
    for name in ("P-Asserted-Identity", "P-Preferred-Identity", "Remote-Party-ID", "Diversion", "History-Info"):
        more = ";party=calling;screen=yes;privacy=off" if name == "Remote-Party-ID" else ""
        yield Forgery(name.lower(), headers=[(name, address + more)])
    for name in (
        "Identity",
        "Subject",
        "User-Agent",
        "Privacy",
        "X-Attack",
        "X-Teleforge-Contact-Ref",
        "P-Key-Flags",
        "Call-Info",
        "Alert-Info",
        "Supported",
        "Accept-Language",
        "Organization",
        "Reason",
        "Date",
        f"X-A{token.replace(':', '%3A')[:60]}",
    ):
        yield Forgery(name[:24].lower(), headers=[(name, payload)])
    yield Forgery("content-type", instead={"Content-Type": payload})
    sdp = f"v=0\r\no={token} 1 1 IN IP4 127.0.0.1\r\ns={token}\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    yield Forgery("sdp", body=f"{sdp}m=audio 9 RTP/AVP 0\r\na={token}\r\n")


#: The victim's number in every header in which a network would pass it on. FreeSWITCH believes each of them (hazard
#: 30).
CLAIMS = [
    Forgery("pai", [("P-Asserted-Identity", f"<sip:{VICTIM}@127.0.0.1>")]),
    Forgery("pai-tel", [("P-Asserted-Identity", f"<tel:+{VICTIM}>")]),
    Forgery("ppi", [("P-Preferred-Identity", f"<sip:{VICTIM}@127.0.0.1>")]),
    Forgery("rpid", [("Remote-Party-ID", f"<sip:{VICTIM}@127.0.0.1>;party=calling;screen=yes;privacy=off")]),
    Forgery("twice", [("P-Asserted-Identity", f"<sip:{VICTIM}@127.0.0.1>")] * 2),
    Forgery("diversion", [("Diversion", f"<sip:{VICTIM}@127.0.0.1>;reason=unconditional")]),
    Forgery("history", [("History-Info", f"<sip:{VICTIM}@127.0.0.1>;index=1")]),
    Forgery("identity", [("Identity", "eyJhbGciOiJFUzI1NiJ9..x;info=<http://127.0.0.1/>;alg=ES256;ppt=shaken")]),
    # FreeSWITCH leaves sip_from_user out if it decodes to nothing, and then has only the asserted number.
    *(
        Forgery(f"from-{name}", [("P-Asserted-Identity", f"<sip:{VICTIM}@127.0.0.1>")], sender=sender, claims=True)
        for name, sender in (
            ("nul", "<sip:%00@127.0.0.1>"),
            ("nobody", "<sip:127.0.0.1>"),
            ("empty", "<sip:@127.0.0.1>"),
            ("blank", "<sip:%20@127.0.0.1>"),
            ("urn", "<urn:service:sos>"),
            ("anonymous", "<sip:anonymous@anonymous.invalid>"),
            ("nul-tel", "<tel:%00>"),
        )
    ),
    Forgery("x-auth", [("X-AUTH-IP", "10.99.99.99"), ("X-sip_authorized", "true"), ("X-FS-Channel-Name", VICTIM)]),
    Forgery("x-ours", [("X-esl_call_ref", "a"), ("X-variable_esl_call_ref", "a"), ("P-esl_node", "a")]),
    Forgery("replaces", [("Replaces", "a;from-tag=b;to-tag=c")]),
]
