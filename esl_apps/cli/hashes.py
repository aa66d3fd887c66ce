"""``esl-apps hash-pin`` and ``esl-apps hash-token``: hashes to be written into a configuration."""

from __future__ import annotations

import argparse
import re
import sys
from getpass import getpass

from esl_apps.apps.disa import LONGEST_HASHED
from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import print_error
from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.config.rules.warnings import SHORT_TOKEN
from esl_apps.config.tokens import hash_token
from esl_apps.store.cards import hash_pin


def run_pin(config: Config, arguments: argparse.Namespace) -> int:
    if not config.pin_key:
        raise ConfigError("missing; a PIN's hash is keyed with it", "pin_key", file=arguments.config)
    pin = _read_secret("PIN: ")
    if not (pin.isascii() and pin.isdigit()):
        print_error("expected a PIN: digits")
        return Exit.FAILED
    if len(pin) > LONGEST_HASHED:
        print_error(f"expected a PIN: {LONGEST_HASHED} digits at most")
        return Exit.FAILED
    print(hash_pin(config.pin_key, pin))
    return Exit.OK


def run_token(_arguments: argparse.Namespace) -> int:
    token = _read_secret("Token: ")
    if len(token) < SHORT_TOKEN or not re.fullmatch("[!-~]+", token):
        print_error(f"expected a token: at least {SHORT_TOKEN} printable ASCII characters, no spaces")
        return Exit.FAILED
    print(hash_token(token))
    return Exit.OK


def _read_secret(prompt: str) -> str:
    """Return a line from the terminal or standard input: an argument would be in the shell's history and in every
    user's list of processes. Empty if there is none."""
    try:
        if sys.stdin is None:
            return ""
        return getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline().strip()
    except (EOFError, UnicodeDecodeError):
        return ""
