"""SIPp as the caller and as the called: scenarios written from parts, and runs of them."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import process

HOST = "127.0.0.1"
#: Milliseconds from the answer to the first key, from key to key, and from the last one to the BYE.
BEFORE_KEYS, BETWEEN_KEYS, BEFORE_BYE = 300, 60, 700

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
Subject: [field1]
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
    """A scenario: call ``did``, key what stands in the fields from the second on and ``#``, hang up.

    Its fields: the caller's number, the number to be keyed (in the INVITE's Subject), and its ``keys`` digits.
    """
    parts = [_INVITE.format(did=did), _sent("ACK", did, 1, ""), _pause(BEFORE_KEYS)]
    for i in range(keys + 1):
        key = f"[field{i + 2}]" if i < keys else "#"
        parts += [_sent("INFO", did, i + 2, _KEY.format(key=key)), '<recv response="200"/>\n']
        parts.append(_pause(BETWEEN_KEYS if i < keys else BEFORE_BYE))
    parts += [_sent("BYE", did, keys + 3, ""), '<recv response="200"/>\n']
    return '<?xml version="1.0"?>\n<scenario name="caller">\n' + "".join(parts) + "</scenario>\n"


def _sent(method: str, did: str, number: int, rest: str) -> str:
    again = "" if method == "ACK" else ' retrans="500"'
    text = _IN_DIALOG.format(method=method, did=did, number=number) + (rest or _EMPTY)
    return f"<send{again}><![CDATA[\n{text}\n]]></send>\n"


def _pause(ms: int) -> str:
    return f'<pause milliseconds="{ms}"/>\n'


def fields(calls: Sequence[tuple[str, str]]) -> str:
    """The injected fields of ``caller``, from each call's two numbers."""
    return "\n".join(["SEQUENTIAL", *(";".join([who, number, *number]) for who, number in calls), ""])


def run(folder: Path, did: str, target: int, rate: int, calls: Sequence[tuple[str, str]]) -> None:
    """Place the calls, so many a second, and see all of them end.

    :raises RuntimeError: one of them did not go as the scenario says.
    """
    scenario, injected = folder / "caller.xml", folder / "caller.csv"
    scenario.write_text(caller(did, len(calls[0][1])))
    injected.write_text(fields(calls))
    command = ["sipp", f"{HOST}:{target}", "-sf", str(scenario), "-inf", str(injected), "-i", HOST, "-nostdin"]
    command += ["-p", str(process.free_port()), "-r", str(rate), "-m", str(len(calls)), "-l", "2000"]
    command += ["-timer_resol", "1", "-trace_err", "-error_file", str(folder / "errors.log")]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode != 0:
        errors = folder / "errors.log"
        said = errors.read_text(errors="replace")[:1500] if errors.exists() else ended.stderr[-500:]
        raise RuntimeError(f"sipp, {did}: exit {ended.returncode}: {said}")


@contextlib.contextmanager
def answering(folder: Path) -> Iterator[int]:
    """A SIPp that answers whoever calls its port; the port."""
    port = process.free_port()
    command = ["sipp", "-sn", "uas", "-i", HOST, "-p", str(port), "-nostdin", "-timer_resol", "1"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        try:
            until = time.monotonic() + 10
            while f":{port:04X} " not in Path("/proc/net/udp").read_text():
                if child.poll() is not None or time.monotonic() > until:
                    raise RuntimeError("sipp does not answer calls")
                time.sleep(0.05)
            yield port
        finally:
            child.kill()
