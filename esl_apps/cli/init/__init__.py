"""``esl-apps init DIR``: the files of an installation, with fresh secrets, and the commands that put them in place."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from esl_apps.cli import new_files
from esl_apps.cli.exit_status import Exit
from esl_apps.cli.init import answers, templates, this_machine
from esl_apps.cli.init.this_machine import Machine
from esl_apps.cli.output import print_error, report
from esl_apps.config.problems import ConfigError

#: Files with secrets in them.
_PRIVATE = (templates.SECRETS, "freeswitch/event_socket.conf.xml", "dialplan/00_esl_apps_secret.xml")
#: The body of the first call. Any valid number may be shown, as the integrator lists none of its own.
_FIRST_CALL = '{"agent": "1000", "callee": "1001", "outbound_id": "27115550000", "contact_ref": "first-call"}'


def run(arguments: argparse.Namespace) -> int:
    folder = Path(arguments.folder).absolute()
    machine = this_machine.look(arguments.freeswitch, arguments.switch_password)
    _say(machine)
    try:
        given = answers.ask(arguments, machine)
        made = templates.make(given, machine, folder)
    except answers.Wrong as error:
        print_error(str(error))
        return Exit.WRONG
    except ConfigError as error:
        for problem in error.problems:
            print_error(str(problem))
        return Exit.WRONG
    taken = [name for name in made if os.path.lexists(folder / name)]
    for name in taken:
        print_error(f"{folder / name}: is there already; nothing was written")
    if taken:
        return Exit.FAILED
    if arguments.dry_run:
        _show(made)
        return Exit.OK
    _write(made, folder)
    _say_next(folder, given, machine)
    return Exit.OK


def _say(machine: Machine) -> None:
    """Say what was found, on standard error: the output may be a dry run's."""
    if machine.folder is None:
        found = "no FreeSWITCH on this machine; --freeswitch names its configuration's folder"
    elif not machine.answers:
        found = f"FreeSWITCH in {machine.folder}; {machine.address} doesn't answer, or has another password"
    else:
        gateways = ", ".join(machine.gateways) or "none"
        found = f"FreeSWITCH in {machine.folder}, at {machine.address}; domain {machine.domain}; gateways: {gateways}"
    print(f"Found: {found}", file=sys.stderr)


def _show(made: dict[str, str]) -> None:
    for name, text in made.items():
        print(f"# {name}\n{text}")


def _write(made: dict[str, str], folder: Path) -> None:
    """:raises OSError: the folder can't be written."""
    modes = {folder / name: 0o600 for name in _PRIVATE} | {folder / templates.SCRIPT: 0o755}
    new_files.write({folder / name: text for name, text in made.items()}, modes)
    for name in made:
        report(str(folder / name))


def _say_next(folder: Path, given: answers.Answers, machine: Machine) -> None:
    variable = templates.variable_of(given.integrator)
    token = f'$(sed -n "s/^{variable}=//p" {folder / templates.SECRETS})'
    lines = [
        "",
        "Next, as root:",
        f"  sh {folder / templates.SCRIPT}",
        "      puts the files in place, starts the node and checks everything. Read it first.",
        "Then let phone 1000 call 1001:",
        f'  curl -H "Authorization: Bearer {token}" -H "Content-Type: application/json" \\',
        f"      -d '{_FIRST_CALL}' \\",
        "      http://127.0.0.1:8300/click2dial/calls",
    ]
    if machine.folder is not None and not machine.answers:
        lines.append("FreeSWITCH didn't answer: look at the domain and the gateways in the configuration.")
    report("\n".join(lines))
