"""Run SIPp as caller and as callee, with generated scenarios."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import process

HOST = "127.0.0.1"
_SOME_FAILED = 1
#: Least and most milliseconds from the answer to the first key, between keys, and from the last key (without keys: the
#: answer) to the BYE. Each range covers a 20 ms frame; otherwise all calls would hit the same phase of the switch's
#: clock.
BEFORE_KEYS, BETWEEN_KEYS, BEFORE_BYE = (150, 170), (40, 60), (300, 320)

_INVITE = """\
<send retrans="500"><![CDATA[
INVITE sip:{did}@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:[field0]@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:{did}@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: sip:[field0]@[local_ip]:[local_port]
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: [len]

v=0
o=sipp 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 0 101
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
]]></send>
<recv response="100" optional="true"/>
<recv response="180" optional="true"/>
<recv response="183" optional="true"/>
<recv response="200" rrs="true"/>
"""
_IN_DIALOG = """\
{method} [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:[field0]@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:{did}@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: {number} {method}
Contact: sip:[field0]@[local_ip]:[local_port]
Max-Forwards: 70
"""
_EMPTY = "Content-Length: 0\n"
_KEY = """\
Content-Type: application/dtmf-relay
Content-Length: [len]

Signal={key}
Duration=100
"""


def caller(did: str, keys: int) -> str:
    """Return a scenario that calls ``did``, keys ``keys`` digits and ``#`` (nothing for 0), and hangs up.

    Its fields are the caller's number, the number to key, and the digits of that number.
    """
    pressed = [*(f"[field{i + 2}]" for i in range(keys)), "#"] if keys else []
    parts = [_INVITE.format(did=did), _sent("ACK", did, 1, "")]
    for i, key in enumerate(pressed):
        parts.append(_pause(BETWEEN_KEYS if i else BEFORE_KEYS))
        parts += [_sent("INFO", did, i + 2, _KEY.format(key=key)), '<recv response="200"/>\n']
    parts += [_pause(BEFORE_BYE), _sent("BYE", did, len(pressed) + 2, ""), '<recv response="200"/>\n']
    return '<?xml version="1.0"?>\n<scenario name="caller">\n' + "".join(parts) + "</scenario>\n"


def _sent(method: str, did: str, number: int, rest: str) -> str:
    again = "" if method == "ACK" else ' retrans="500"'
    text = _IN_DIALOG.format(method=method, did=did, number=number) + (rest or _EMPTY)
    return f"<send{again}><![CDATA[\n{text}\n]]></send>\n"


def _pause(least_most: tuple[int, int]) -> str:
    least, most = least_most
    return f'<pause distribution="uniform" min="{least}" max="{most}"/>\n'


def fields(calls: Sequence[tuple[str, str]]) -> str:
    """Return the file of fields for ``caller``, from the two numbers of each call."""
    return "\n".join(["SEQUENTIAL", *(";".join([who, number, *number]) for who, number in calls), ""])


def run(
    folder: Path,
    did: str,
    target: int,
    rate: int,
    calls: Sequence[tuple[str, str]],
    *,
    dial: bool,
    patience: int = 0,
) -> bool:
    """Place ``calls`` at ``rate`` a second. Returns whether all of them followed the scenario.

    Each call is a caller and the number to key, which is only used if ``dial`` is true. ``patience``: seconds after
    which an answer that hasn't come is a failure; 0: as long as SIPp waits by itself.

    :raises RuntimeError: SIPp itself failed.
    """
    scenario, injected = folder / "caller.xml", folder / "caller.csv"
    scenario.write_text(caller(did, len(calls[0][1]) if dial else 0))
    injected.write_text(fields(calls))
    command = ["sipp", f"{HOST}:{target}", "-sf", str(scenario), "-inf", str(injected), "-i", HOST, "-nostdin"]
    command += ["-p", str(process.free_port()), "-r", str(rate), "-m", str(len(calls)), "-l", "2000"]
    command += ["-timer_resol", "1", "-watchdog_minor_maxtriggers", "100000", "-watchdog_major_maxtriggers", "1000"]
    if patience:
        command += ["-recv_timeout", str(patience * 1000)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    if ended.returncode not in (0, _SOME_FAILED):
        raise RuntimeError(f"sipp, {did}: exit {ended.returncode}: {ended.stderr[-500:]}")
    return ended.returncode == 0


@contextlib.contextmanager
def answering(folder: Path) -> Iterator[int]:
    """Run a SIPp that answers all calls. Yields its port."""
    port = process.free_port()
    command = ["sipp", "-sn", "uas", "-i", HOST, "-p", str(port), "-nostdin", "-timer_resol", "1"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            until = time.monotonic() + 10
            while f":{port:04X} " not in Path("/proc/net/udp").read_text():
                if child.poll() is not None or time.monotonic() > until:
                    raise RuntimeError("sipp didn't open its port within 10 s")
                time.sleep(0.05)
            yield port
        finally:
            child.kill()
