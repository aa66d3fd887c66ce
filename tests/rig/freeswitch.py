"""A private FreeSWITCH on loopback, with PJSIP phones.

``FreeswitchRig`` writes a configuration in the stock layout (``fsconf/``), starts the switch on free ports, and runs
*banks* of phones (``pjsip_phones.py``, one process each): registered extensions on the internal profile, and outside
numbers behind the gateways ``pstn`` and ``pstn2``. Calls to a gateway pass a small SIP proxy, which gives each new call
to the bank with the fewest, so the switch sees one trunk for any number of calls.

Nothing here imports esl_apps, which is what the rig tests.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.rig.base import HOST, RigError, eventually
from tests.rig.event_socket import EslClient, EventTap
from tests.rig.fs_configuration import Configuration, extension
from tests.rig.phones import PASSWORD
from tests.rig.phones_side import PhonesSide
from tests.rig.raw_call import RawCall
from tests.rig.registration import DeadRegistration
from tests.support.ports import free_ports, give_back, media_ports

ESL_PASSWORD = "rig-not-the-stock-one"
USUAL_PATHS = (
    "/usr/local/freeswitch/bin/freeswitch",
    "/opt/freeswitch/bin/freeswitch",
    "/usr/local/bin/freeswitch",
    "/usr/bin/freeswitch",
)
OUTSIDE_BANKS = 2
_SWITCH_RTP_PORTS = 400


def find_freeswitch() -> Path | None:
    """Return the binary: ``$FREESWITCH``, or one in the usual places."""
    named = os.environ.get("FREESWITCH")
    for path in [named] if named else USUAL_PATHS:
        if os.access(path, os.X_OK) and Path(path).is_file():
            return Path(path)
    on_path = None if named else shutil.which("freeswitch")
    return Path(on_path) if on_path else None


class FreeswitchRig(PhonesSide):
    """The switch and its phones (``Rig``).

    ``dialplan_files``: XML files to add to the dialplan. A path goes to the context that its own or its folder's name
    contains (``public``, ``default``), else to both; ``(context, path)`` names the context.
    ``conf_files``: files that replace those of the same name in ``autoload_configs``, with this switch's ports,
    passwords and folders.
    ``rewrite_timestamps``: the profiles' ``rtp-rewrite-timestamps``. Stock FreeSWITCH (False) starts a bridge with the
    other leg's RTP timestamps, which may jump *back*. PJSIP then drops the first packets as late, and its user hears
    nothing for about as long as it rang (measured: 0.45 s after 0.5 s of ringing, 0.95 s after 1 s, nothing lost after
    1.8 s or more).
    ``trunk_transfers``: whether the trunk's profile obeys REFER, as that of stock FreeSWITCH does.
    ``digit_ms``: how long the phones press a key.
    ``browsers``: an address of this machine for phones in browsers, with the shipped WebRTC settings. The internal
    profile is there then, so PJSIP extensions can't register. The browsers' SIP server is ``websocket``, or with TLS
    ``websocket_tls``.
    """

    name = "freeswitch"

    def __init__(
        self,
        *,
        dialplan_files: Iterable[Path | tuple[str, Path]] = (),
        conf_files: Iterable[Path] = (),
        rewrite_timestamps: bool = True,
        digit_ms: int = 40,
        browsers: str = "",
        trunk_transfers: bool = True,
        start: bool = True,
    ) -> None:
        binary = find_freeswitch()
        if binary is None:
            raise RigError("no FreeSWITCH: set $FREESWITCH to its binary")
        folder = Path(tempfile.mkdtemp(prefix="esl-apps-fs-"))
        ports = free_ports(5)
        super().__init__(folder / "phones", digit_ms, ports + 1, ports + 2)
        self.binary = binary
        self.folder = folder
        self.esl_port = ports
        self.websocket = f"{browsers}:{ports + 3}"
        self.websocket_tls = f"{browsers}:{ports + 4}"
        self.conf = self.folder / "conf"
        self.recordings = self.folder / "recordings"
        self.log = self.folder / "log" / "freeswitch.log"
        self.spool = self.folder / "log" / "json_cdr"
        self.rtp_start = media_ports(_SWITCH_RTP_PORTS)
        self.esl_address = f"{HOST}:{self.esl_port}"
        self.esl_password = ESL_PASSWORD
        self.dial: dict[str, object] = {
            "extension": f"user/{{number}}@{HOST}",
            "external": ["sofia/gateway/pstn/{number}"],
        }
        self.log_mark = 0
        self.taps: list[EventTap] = []
        self.dead_registrations: list[DeadRegistration] = []
        self._esl_lock = threading.RLock()
        self._esl: EslClient | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._paused = False
        for name in ("db", "run", "recordings", "log/json_cdr", "phones", "storage", "cache", "tmp", "certs"):
            (self.folder / name).mkdir(parents=True)
        self.configuration = Configuration(
            self.conf,
            {
                "local_ip_v4": HOST,
                "internal_ip": browsers or HOST,
                "domain": HOST,
                "domain_name": HOST,
                "internal_sip_port": self.internal_port,
                "external_sip_port": self.external_port,
                "rig_esl_port": self.esl_port,
                "rig_esl_password": self.esl_password,
                "rig_trunk_port": self.trunk.ports[0],
                "rig_trunk2_port": self.trunk.ports[1],
                "rig_silent_port": self.trunk.silent_port,
                "rig_rtp_start": self.rtp_start,
                "rig_rtp_end": self.rtp_start + 398,
                "rig_log": self.log,
                "rig_spool": self.spool,
                "recordings_dir": self.recordings,
                "rig_rewrite_timestamps": str(rewrite_timestamps).lower(),
                "rig_disable_transfer": str(not trunk_transfers).lower(),
            },
        )
        self.configuration.write(dialplan_files, conf_files, self.users)
        if browsers:
            self.configuration.add_browsers(self.websocket, self.websocket_tls)
        atexit.register(self.close)
        if start:
            self.start()

    def add_user(self, number: str) -> None:
        """Add an extension to the switch's directory."""
        self.configuration.write_user(number)
        self.reload_xml()

    def route(self, number: str, path: str, node: str) -> None:
        """Route a number. ``node`` may be a list, ``host:port|host:port``, for the switch's own failover."""
        self.configuration.routes[number] = (path, node)
        self.configuration.write_routes()
        self.reload_xml()

    def route_refers(self, node: str) -> None:
        self.configuration.write_refers(node)
        self.reload_xml()

    def extension(self, context: str, number: str, actions: Iterable[tuple[str, str]]) -> None:
        """Add a dialplan extension until ``reset``. ``number`` is taken literally."""
        self.configuration.extra[context].append(extension(f"rig_test_{number}", number, actions))
        self.configuration.write_routes()
        self.reload_xml()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def reload_xml(self) -> None:
        reply = self.api("reloadxml")
        if not reply.startswith("+OK"):
            raise RigError(f"reloadxml: {reply}")

    def api(self, command: str) -> str:
        with self._esl_lock:
            try:
                return self._api(command)
            except TimeoutError:
                raise
            except OSError:  # the connection was cut, or the switch was restarted
                return self._api(command)

    def _api(self, command: str) -> str:
        try:
            if self._esl is None:
                self._esl = EslClient(self.esl_port, self.esl_password, 10)
            return self._esl.command(f"api {command}").body.decode("utf-8", "replace")
        except OSError:
            if self._esl:
                self._esl.close()
            self._esl = None
            raise

    def listen_events(self, names: str = "all") -> EventTap:
        """Start a second client that subscribes to ``event plain NAMES``. The test, or ``reset``, closes it."""
        tap = EventTap(EslClient(self.esl_port, self.esl_password, 5), names)
        self.taps.append(tap)
        return tap

    def live_channels(self) -> int:
        """Return the number of sessions, which the core counts at once. ``show channels`` lags behind."""
        match = re.search(r"(\d+) session\(s\) - peak", self.api("status"))
        if not match:
            raise RigError("status has no sessions")
        return int(match[1])

    def raw_call(self, number: str, headers: Iterable[tuple[str, str]], *, sender: str, **more: Any) -> RawCall:
        """Make a call into the public context whose bytes the test chooses: see ``RawCall``."""
        return RawCall(self.external_port, number, headers, sender, **more)

    def dead_registration(self, number: str) -> None:
        self.dead_registrations.append(DeadRegistration(self.internal_port, number, PASSWORD))

    def offer(self, number: str, codecs: Sequence[str]) -> int:
        types = {"PCMU": "0", "PCMA": "8", "G729": "18"}
        lines = ["v=0", f"o=- 1 1 IN IP4 {HOST}", "s=-", f"c=IN IP4 {HOST}", "t=0 0"]
        lines += [f"m=audio 9 RTP/AVP {' '.join(types[codec] for codec in codecs)}"]
        lines += [f"a=rtpmap:{types[codec]} {codec}/8000" for codec in codecs]
        call = self.raw_call(number, [], sender=f"<sip:0825550009@{HOST}>", payload="\r\n".join([*lines, ""]))
        status = call.wait()
        if status == 200:
            time.sleep(0.3)  # a caller who hangs up in the same milliseconds was never connected
        call.hangup()
        return status or 0

    def log_text(self, *, all_of_it: bool = False) -> str:
        """Return the switch's debug log since the last ``reset``."""
        with self.log.open("rb") as log:
            log.seek(0 if all_of_it else self.log_mark)
            return log.read().decode("utf-8", "replace")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        if self.running:
            return
        if not self.outside_banks:  # they start while the switch does
            self.outside_banks = [self._new_bank("outside") for _ in range(OUTSIDE_BANKS)]
        folders = {"log": "log", "run": "run", "db": "db", "recordings": "recordings"}
        folders |= {"storage": "storage", "cache": "cache", "temp": "tmp", "conf": "conf", "certs": "certs"}
        command = [str(self.binary), "-nonat", "-nf", "-nc"]
        for option, folder in folders.items():
            command += [f"-{option}", str(self.folder / folder)]
        with (self.folder / "log" / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
            )
        # kills the switch when this process ends for any reason, because its pipe closes
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", 'cat > /dev/null; kill -9 "$0"', str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        eventually(self._is_up, within=20, message=f"FreeSWITCH did not start, see {self.folder}/log")
        for bank in self.outside_banks:
            bank.wait_ready()
        self._register_again()

    def _is_up(self) -> bool:
        if not self.running:
            raise RigError(f"FreeSWITCH ended at its start, see {self.folder}/log")
        try:
            return " is ready" in self.api("status") and self.api("sofia status").count("RUNNING") == 2
        except (OSError, RigError):
            return False

    def kill(self) -> None:
        if self._process is None:
            return
        if self._keeper:
            self._keeper.kill()  # first, because the switch's process id may soon be another's
            self._keeper.wait()
            if self._keeper.stdin:
                self._keeper.stdin.close()
            self._keeper = None
        self._process.kill()
        self._process.wait()
        self._process = None
        self._paused = False
        with self._esl_lock:
            if self._esl:
                self._esl.close()
                self._esl = None

    def pause(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGSTOP)
            self._paused = True

    def resume(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self._paused = False

    def drop_sockets(self) -> None:
        """Shut down the switch's own ends of its event-socket connections, in both directions.

        The switch can't be told to (it refuses ``reload mod_event_socket`` while an outbound session lives), but the
        kernel gives a process's descriptors to a process that may trace it.
        """
        if self._process is None:
            return
        ours = {tap.local_port for tap in self.taps} | ({self._esl.local_port} if self._esl else set())
        sip = {self.internal_port, self.external_port}
        pid = self._process.pid
        pidfd = os.pidfd_open(pid)
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                        continue
                    with socket.socket(fileno=pidfd_getfd(pidfd, int(name))) as theirs:
                        if theirs.family != socket.AF_INET or theirs.type != socket.SOCK_STREAM:
                            continue
                        far, near = theirs.getpeername()[1], theirs.getsockname()[1]
                        if far not in ours and near not in sip and far not in sip:
                            theirs.shutdown(socket.SHUT_RDWR)
        finally:
            os.close(pidfd)

    def reset(self) -> None:
        if self._paused:
            self.resume()
        self.start()
        for tap in self.taps:
            tap.close()
        self.taps = []
        banks = [bank for bank in self.extension_banks + self.outside_banks if bank.alive]
        for answer in [bank.send("clear") for bank in banks]:
            answer()
        self.api("hupall")
        for registration in self.dead_registrations:
            registration.forget()
        self.dead_registrations = []
        if self.configuration.forget_routes():
            self.reload_xml()
        eventually(lambda: self.live_channels() == 0, within=10, message="channels that do not end")
        self._retire_hung_banks()
        forgotten = [(bank, number) for bank in self.outside_banks for number in self.outsiders]
        for answer in [bank.send("script", key=number, script=None) for bank, number in forgotten]:
            answer()
        with self._lock:
            self.trunk.banks.clear()
            self.trunk.waiting.clear()
            self.outsiders = {}
            self.stray_calls = []
            for phone in self.extensions.values():
                phone._calls = []
            for bank in banks:
                with bank.lock:
                    bank.legs = {ref: leg for ref, leg in bank.legs.items() if not leg.ended}
        for path in self.spool.iterdir():
            path.unlink(missing_ok=True)
        self.log_mark = self.log.stat().st_size

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        for tap in self.taps:
            tap.close()
        self.kill()  # it has nothing to save, and its own shutdown takes seconds
        self.trunk.close()
        for bank in self.extension_banks + self.outside_banks:
            bank.close()
        give_back(self.rtp_start, _SWITCH_RTP_PORTS)
        if not os.environ.get("ESL_APPS_KEEP_RIG"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> FreeswitchRig:
        return self

    def __exit__(self, *how: object) -> None:
        self.close()


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Copy another process's descriptor with ``pidfd_getfd(2)``."""
    libc = ctypes.CDLL(None, use_errno=True)
    copied = libc.syscall(438, pidfd, fd, 0)
    if copied < 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, os.strerror(number))
    return int(copied)
