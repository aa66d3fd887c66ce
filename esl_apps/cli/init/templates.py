"""The files of an installation, made from the answers. Nothing here touches the disk."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import socket
import sys
from pathlib import Path

import msgspec

from esl_apps.cli import dialplan, files
from esl_apps.cli.init.answers import Answers
from esl_apps.cli.init.this_machine import STOCK_PASSWORD, Machine
from esl_apps.config import parse
from esl_apps.config.env_file import variables
from esl_apps.net.address import here_towards, is_elsewhere, split_address
from esl_apps.prompts import PROMPTS

CONFIG, SECRETS, SCRIPT = "esl_apps.yml", "esl_apps.env", "install.sh"
_UNIT, _DROP_IN = "esl-apps.service", "esl-apps.service.d/spool.conf"


def make(answers: Answers, machine: Machine, folder: Path) -> dict[str, str]:
    """Return all files, by their names in ``folder``. :raises ConfigError: the configuration can't be used."""
    spool = f"{machine.logs}/json_cdr"
    made = {CONFIG: _config(answers, spool), SECRETS: _secrets(answers)}
    config = parse(made[CONFIG], variables(made[SECRETS]), str(folder / CONFIG))
    rendered = dialplan.render(msgspec.to_builtins(config), prompts=str(PROMPTS))
    made |= {f"dialplan/{name}": text for name, text in rendered.items()}
    password = variables(made[SECRETS])["FS_PASSWORD"]
    made["freeswitch/event_socket.conf.xml"] = _event_socket(answers, password)
    made["freeswitch/json_cdr.conf.xml"] = files.text_of("freeswitch/json_cdr.conf.xml").replace(
        "/var/log/freeswitch/json_cdr", spool
    )
    made["freeswitch/post_load_modules.conf.xml"] = files.text_of("freeswitch/post_load_modules.conf.xml")
    if machine.has_unit:
        made[_DROP_IN] = f"# The node removes records from the switch's spool.\n[Service]\nReadWritePaths=-{spool}\n"
    else:
        made[_UNIT] = _unit(machine, folder, spool)
    made[SCRIPT] = _script(machine, answers, folder, spool)
    return made


def variable_of(integrator: str) -> str:
    """The name of the variable that holds an integrator's token."""
    return re.sub(r"\W", "_", integrator.upper()) + "_TOKEN"


def _config(answers: Answers, spool: str) -> str:
    external = f'["sofia/gateway/{answers.gateway}/{{number}}"]' if answers.gateway else "[]"
    gateways = "gateways to dial out, in the order to try them" if answers.gateway else "no gateway: only extensions"
    return f"""\
# esl_apps, as `esl-apps init` made it. `esl-apps files esl_apps.yml` prints every other key with its meaning.
# After a change: `esl-apps check`, then `systemctl reload esl-apps`. The secrets are in {SECRETS}; a change of them
# takes a restart.

node:
  name: "{_host()}"                   # unique among the nodes that share a Redis
{_listen(answers.switch)}
redis:
  url: {_redis_url(answers)}

pin_key: "${{PIN_KEY}}"

switches:
  - name: fs1
    address: "{answers.switch}"
    password: "${{FS_PASSWORD}}"

dial:
  region: "{answers.region}"                        # its dialling rules apply to numbers without +
  extension: "user/{{number}}@{answers.domain}"
  external: {external}  # {gateways}

admin:
  token: "${{ADMIN_TOKEN}}"

spool:
  dir: {json.dumps(spool)}

integrators:
  - name: "{answers.integrator}"
    listen: 127.0.0.1:8300
    token: "${{{variable_of(answers.integrator)}}}"
"""


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname().partition(".")[0]).strip("-") or "app1"


def _listen(switch: str) -> str:
    """The line with this machine's address towards a switch on another one; none for a switch on this machine."""
    host, port = split_address(switch)
    here = here_towards(host, port) if is_elsewhere(host, port) else None
    # FreeSWITCH's socket application takes no IPv6 address.
    return "" if here is None or ":" in here else f'  listen: "{here}:8084"            # where the switch connects to\n'


def _redis_url(answers: Answers) -> str:
    return '"${REDIS_URL}"' if _is_secret(answers.redis) else json.dumps(answers.redis)


def _is_secret(url: str) -> bool:
    return "@" in url or "password=" in url


def _secrets(answers: Answers) -> str:
    password = answers.password
    if password in ("", STOCK_PASSWORD):
        password = secrets.token_hex(24)
    # sh reads the file, too. No value has a single quote in it.
    return f"""\
# The secrets of {CONFIG}. Keep a copy of PIN_KEY: if it is lost, all PINs are lost.
PIN_KEY={secrets.token_hex(24)}
FS_PASSWORD={shlex.quote(password)}
ADMIN_TOKEN={secrets.token_hex(24)}
{variable_of(answers.integrator)}={secrets.token_hex(24)}
""" + (f"REDIS_URL={shlex.quote(answers.redis)}\n" if _is_secret(answers.redis) else "")


def _event_socket(answers: Answers, password: str) -> str:
    host, _, port = answers.switch.rpartition(":")
    text = files.text_of("freeswitch/event_socket.conf.xml")
    text = text.replace('name="listen-port" value="8021"', f'name="listen-port" value="{port}"')
    text = text.replace('value="127.0.0.1"', f'value="{host.strip("[]")}"')
    if host not in ("127.0.0.1", "[::1]", "localhost"):
        text = text.replace('"loopback.auto"', '"localnet.auto"')
    return text.replace('value="ClueCon"', f'value="{password}"')


def _program() -> str:
    """This program, as a service can start it."""
    beside = Path(sys.prefix) / "bin/esl-apps"
    return str(beside) if beside.exists() else f"{sys.executable} -m esl_apps"


def _unit(machine: Machine, folder: Path, spool: str) -> str:
    text = files.text_of("systemd/esl-apps.service")
    text = text.replace("/opt/esl_apps/venv/bin/esl-apps", _program()).replace("/etc/esl_apps", str(folder))
    text = text.replace("/var/log/freeswitch/json_cdr", spool)
    return text if machine.group else text.replace("SupplementaryGroups=", "#SupplementaryGroups=")


def _script(machine: Machine, answers: Answers, folder: Path, spool: str) -> str:
    unit = _DROP_IN if machine.has_unit else _UNIT
    lines = [
        "#!/bin/sh",
        "# Puts the files of this folder in place. Made by `esl-apps init`; read it, then run it as root. Running it",
        "# again does no harm. A file of FreeSWITCH that it replaces is kept, as NAME.before-esl_apps.",
        "set -eu",
        "# The switch and the service must read what root writes.",
        "umask 022",
        f"cd {shlex.quote(str(folder))}",
        "",
        "id esl-apps > /dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin esl-apps",
    ]
    if machine.group:
        lines.append(f"usermod --append --groups {machine.group} esl-apps")
    lines += _switch_steps(machine, answers, spool) if machine.folder is not None else _REMOTE
    lines += [
        "",
        "# The service",
        f"command -v esl-apps > /dev/null || ln -s {shlex.quote(_program())} /usr/local/bin/esl-apps",
        "install -d -o esl-apps -g esl-apps /var/lib/esl_apps",
        "if [ -d /run/systemd/system ]; then",
        f"    install -D -m 644 {unit} /etc/systemd/system/{unit}",
        "    systemctl daemon-reload",
        "    systemctl enable --now esl-apps",
        "fi",
        "# As the service's user: what a check makes must be its own.",
        f"set -a; . ./{SECRETS}; set +a",
        f"runuser -u esl-apps -- {_program()} check -c {CONFIG}",
        "if [ ! -d /run/systemd/system ]; then",
        f'    echo "No systemd runs here. To start the node: (set -a; . $PWD/{SECRETS}; exec runuser -u esl-apps --"',
        f'    echo "    {_program()} serve -c $PWD/{CONFIG})"',
        "fi",
        "",
    ]
    return "\n".join(lines)


_REMOTE = [
    "",
    "echo 'FreeSWITCH is on another machine. Copy dialplan/ and freeswitch/ there (freeswitch/README.rst of",
    "`esl-apps files` says where), reload it, and let its event socket be reached from here.'",
]


def _switch_steps(machine: Machine, answers: Answers, spool: str) -> list[str]:
    host, _, port = answers.switch.rpartition(":")
    logs, spool = shlex.quote(machine.logs), shlex.quote(spool)
    cdrs = [
        'put freeswitch/json_cdr.conf.xml "$conf/autoload_configs/json_cdr.conf.xml"',
        'if grep -q "<load" "$modules" 2> /dev/null && ! grep -q mod_json_cdr "$modules"; then',
        '    echo "Add <load module=\\"mod_json_cdr\\"/> to $modules"',
        "else",
        '    put freeswitch/post_load_modules.conf.xml "$modules"',
        "fi",
        # The switch writes there as its own user; the node reads the files and removes them.
        f'[ -d {spool} ] || install -d -m 2770 -o "$(stat -c %U {logs})" -g esl-apps {spool}',
    ]
    return [
        "",
        "# FreeSWITCH",
        "put() {",
        '    if [ -e "$2" ] && ! cmp -s "$1" "$2" && [ ! -e "$2.before-esl_apps" ]; then',
        '        cp -p "$2" "$2.before-esl_apps"',
        "    fi",
        # Written into the file that is there, so that its owner and its mode stay.
        '    cat "$1" > "$2"',
        "}",
        f"conf={shlex.quote(str(machine.folder))}",
        'modules="$conf/autoload_configs/post_load_modules.conf.xml"',
        'put dialplan/00_esl_apps_public.xml "$conf/dialplan/public/00_esl_apps_public.xml"',
        'put dialplan/00_esl_apps_default.xml "$conf/dialplan/default/00_esl_apps_default.xml"',
        'put dialplan/00_esl_apps_refer.xml "$conf/dialplan/00_esl_apps_refer.xml"',
        *([] if machine.writes_cdrs else cdrs),
        "",
        "# fs_cli reads the password from a file, as other users see a command's arguments. Before the first run, the",
        "# switch has its old one.",
        "home=$(mktemp -d)",
        "trap 'rm -rf \"$home\"' EXIT",
        f". ./{SECRETS}",
        "fs() {",
        f'    for password in "$FS_PASSWORD" {STOCK_PASSWORD}; do',
        f"        printf '[default]\\nhost => {host.strip('[]')}\\nport => {port}\\npassword => %s\\n' \"$password\" "
        '> "$home/.fs_cli_conf"',
        f'        HOME="$home" {shlex.quote(machine.fs_cli)} -x "$1" 2> /dev/null && return',
        "    done",
        '    echo "FreeSWITCH doesn\'t answer. Once it runs: $1"',
        "}",
        "fs reloadxml",
        *([] if machine.writes_cdrs else ["fs 'load mod_json_cdr'"]),
        'if ! cmp -s freeswitch/event_socket.conf.xml "$conf/autoload_configs/event_socket.conf.xml"; then',
        '    put freeswitch/event_socket.conf.xml "$conf/autoload_configs/event_socket.conf.xml"',
        "    fs 'reload mod_event_socket'",
        "fi",
    ]
