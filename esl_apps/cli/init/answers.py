"""The few things that an installation must decide: from options, from the operator at the terminal, or as found."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from getpass import getpass
from urllib.parse import quote

import phonenumbers

from esl_apps.cli.init.this_machine import STOCK_PASSWORD, Machine
from esl_apps.config import redis_url
from esl_apps.net.address import split_address

_NAME = re.compile(r"[A-Za-z0-9._-]+")
#: The characters that a file of secrets and an XML attribute hold without quoting.
_PASSWORD = re.compile(r"[A-Za-z0-9._~+/=@%:,-]+")


class Wrong(Exception):
    """An answer that can't be used: which, and what was expected."""


@dataclass(frozen=True)
class Answers:
    switch: str
    """Its event socket, ``host:port``."""
    password: str
    """'' for a new one."""
    region: str
    domain: str
    gateway: str
    """'' for none."""
    integrator: str
    redis: str


def ask(arguments: argparse.Namespace, machine: Machine) -> Answers:
    """:raises Wrong: an answer can't be used, or is missing without a terminal to ask at."""
    # Asked only where a person can answer.
    asking = not arguments.yes and sys.stdin is not None and sys.stdin.isatty()

    def answer(
        name: str,
        given: str | None,
        default: str,
        question: str,
        read: Callable[[str], str],
        hint: str | None = None,
        prompt: Callable[[str], str] = input,
    ) -> str:
        """``hint``: what the default is; None: the default itself. Ask until the answer can be used."""
        hint = default if hint is None else hint
        while True:
            typed = ""
            if given is None and asking:
                try:
                    typed = prompt(f"{question} [{hint}]: " if hint else f"{question}: ").strip()
                except EOFError:
                    raise Wrong(f"--{name}: no answer") from None
            try:
                return read(given if given is not None else typed or default)
            except ValueError as error:
                if given is not None or not asking:
                    raise Wrong(f"--{name}: {error}") from None
                print(error, file=sys.stderr)

    switch = answer("switch", arguments.switch, machine.address, "FreeSWITCH's event socket", _address)
    password = "" if machine.folder is None else machine.password
    hint = "a new one" if password in ("", STOCK_PASSWORD) else "as in its configuration"
    given = arguments.switch_password
    return Answers(
        switch=switch,
        password=answer("switch-password", given, password, "Its password", _password, hint, getpass),
        region=answer("region", arguments.region, "", "Country of numbers without + (ISO 3166, as ZA)", _region),
        domain=answer("domain", arguments.domain, machine.domain, "Domain that the phones register with", _domain),
        gateway=answer("gateway", arguments.gateway, (machine.gateways or [""])[0], "Gateway to dial out", _gateway),
        integrator=answer("integrator", arguments.integrator, "acme", "Name of the first integrator", _named),
        redis=answer("redis", arguments.redis, "redis://127.0.0.1:6379/0", "Redis", _redis),
    )


def _password(text: str) -> str:
    if text and not _PASSWORD.fullmatch(text):
        raise ValueError("expected letters, digits and ._~+/=@%:,- only")
    return text


def _address(text: str) -> str:
    split_address(text)
    if not re.fullmatch(r"[A-Za-z0-9._:[\]-]+", text):
        raise ValueError("expected host:port, the host a name or an address")
    return text


def _region(text: str) -> str:
    if text.upper() not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError("expected a country of ISO 3166, as ZA: its dialling rules apply to numbers without +")
    return text.upper()


def _domain(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", text):
        raise ValueError("expected the domain that the phones register with: a name or an address")
    return text


def _gateway(text: str) -> str:
    if text and not _NAME.fullmatch(text):
        raise ValueError("expected a name of letters, digits and ._-")
    return text


def _named(text: str) -> str:
    if not _NAME.fullmatch(text) or not text[0].isalpha():
        raise ValueError("expected a name of letters, digits and ._- that begins with a letter")
    if text.lower() == "admin":
        raise ValueError("admin is the operator, whose token is another: expected the client's name")
    return text


def _redis(text: str) -> str:
    """Return the URL with quotes, ``$`` and the like as %XX, which sh, systemd and a configuration read alike."""
    redis_url.check(text)
    return quote(text, safe="%:/@?&=+,[]")
