"""A FreeSWITCH on this machine: its folders, its event socket, its domain and its gateways."""

from __future__ import annotations

import grp
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from esl_apps.esl.answers import SwitchFailed
from esl_apps.esl.switch import Switch

#: Where packages and builds from source keep their configuration.
FOLDERS = (
    "/etc/freeswitch",
    "/usr/local/freeswitch/etc/freeswitch",
    "/usr/local/freeswitch/conf",
    "/opt/freeswitch/etc/freeswitch",
    "/opt/freeswitch/conf",
)
_PACKAGED_UNIT = Path("/lib/systemd/system/esl-apps.service")
#: Seconds to wait for its event socket.
WAIT = 3.0
STOCK_PASSWORD = "ClueCon"  # noqa: S105 - the one to replace
#: The gateway of the stock configuration, which leads nowhere.
_SAMPLE = "example.com"
_EVERYWHERE = {"": "127.0.0.1", "::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}  # noqa: S104 - addresses to recognise


@dataclass(frozen=True)
class Machine:
    """A FreeSWITCH, as far as it is known; the stock values otherwise."""

    folder: Path | None = None
    """Its configuration; None if this machine has no FreeSWITCH."""
    address: str = "127.0.0.1:8021"
    password: str = STOCK_PASSWORD
    answers: bool = False
    """Whether its event socket took the password."""
    domain: str = ""
    gateways: list[str] = field(default_factory=list)
    logs: str = "/var/log/freeswitch"
    writes_cdrs: bool = False
    """Whether mod_json_cdr is loaded, and so configured by hand."""
    has_unit: bool = False
    """Whether a Debian package has brought the systemd unit."""

    @property
    def fs_cli(self) -> str:
        beside = [str(parent / "bin/fs_cli") for parent in self.folder.parents] if self.folder else []
        return next((path for name in ["fs_cli", *beside] if (path := shutil.which(name))), "fs_cli")

    @property
    def group(self) -> str | None:
        """Its group, whose members may read what it writes."""
        try:
            return grp.getgrnam("freeswitch").gr_name
        except KeyError:
            return None


def look(folder: str | None, password: str | None) -> Machine:
    """Find a FreeSWITCH, and ask it. ``folder``, ``password``: as the operator says, instead of looking."""
    found = next(
        (Path(name) for name in ([folder] if folder else FOLDERS) if (Path(name) / "vars.xml").is_file()), None
    )
    machine = Machine(folder=found, has_unit=_PACKAGED_UNIT.exists())
    if found is not None:
        with suppress(OSError, UnicodeDecodeError):
            text = (found / "autoload_configs/event_socket.conf.xml").read_text(encoding="utf-8")
            address, password_there = _event_socket(text)
            machine = replace(machine, address=address, password=password_there)
    if password:
        machine = replace(machine, password=password)
    return _asked(machine) if found is not None else machine


def _event_socket(text: str) -> tuple[str, str]:
    """The address and the password in an event_socket.conf.xml; the stock ones for variables of the switch."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    params: dict[str, str] = dict(re.findall(r"""<param\s+name=["']([\w-]+)["']\s+value=["']([^"'$<>&]*)["']""", text))
    host, port = params.get("listen-ip", ""), params.get("listen-port", "8021")
    host = _EVERYWHERE.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}", params.get("password") or STOCK_PASSWORD


def _asked(machine: Machine) -> Machine:
    """The same with what the switch says, if it answers."""
    host, _, port = machine.address.rpartition(":")
    if not port.isdecimal():
        return machine
    switch = Switch("fs1", (host.strip("[]"), int(port)), machine.password)
    switch.start()
    try:
        if not switch.wait_up(WAIT):
            return machine
        folder = _eval(switch, "conf_dir")
        return replace(
            machine,
            answers=True,
            folder=Path(folder) if folder and Path(folder).is_dir() else machine.folder,
            domain=_eval(switch, "domain"),
            logs=_eval(switch, "log_dir") or machine.logs,
            gateways=list(_gateways(switch.api("sofia status"))),
            writes_cdrs=switch.api("module_exists mod_json_cdr").strip() == "true",
        )
    except SwitchFailed:
        return replace(machine, answers=True)
    finally:
        switch.stop()


def _eval(switch: Switch, name: str) -> str:
    """A global variable; '' if there is none."""
    answer = switch.api(f"eval $${{{name}}}").strip()
    return "" if answer.startswith("-ERR") else answer


def _gateways(status: str) -> Iterator[str]:
    for line in status.splitlines():
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) > 1 and parts[1] == "gateway" and (name := parts[0].rpartition("::")[2]) != _SAMPLE:
            yield name
