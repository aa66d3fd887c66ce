"""``esl-apps check``: everything that a configuration names, tried, one line each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from esl_apps.cli.breakers import thresholds
from esl_apps.config import warnings
from esl_apps.config.model import Config, sections
from esl_apps.config.problems import ConfigError
from esl_apps.config.spending import Limits
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.session import ReplyError
from esl_apps.esl.switch import Switch, Unavailable
from esl_apps.net.address import is_loopback, split_address
from esl_apps.node.state_folder import state_folder
from esl_apps.prompts import prompt_path
from esl_apps.store import redis_client

_WAIT = 5.0


@dataclass(frozen=True)
class Result:
    what: str
    ok: bool
    message: str
    warning: bool = False


def run(config: Config) -> Iterator[Result]:
    """The results, as they come in."""
    yield Result("configuration", True, "read")
    for problem in warnings(config):
        yield Result(problem.key, True, problem.message, warning=True)
    for one in config.switches:
        switch = Switch(one.name, split_address(one.address), one.password)
        switch.start()
        try:
            if not switch.wait_up(_WAIT):
                yield Result(f"switch {one.name}", False, f"{one.address}: {switch.last_error}")
                continue
            yield Result(f"switch {one.name}", True, f"{one.address}: {_first_line(switch.api('version'))}")
            yield from _dial_strings(config, one.name, switch)
        except (Unavailable, ReplyError) as error:
            yield Result(f"switch {one.name}", False, str(error))
        finally:
            switch.stop()
    stale = config.redis.stale_cards
    opens = f"a card that it knew less than {stale:g} s before opens" if stale else "no card opens anything"
    yield Result("redis.stale_cards", True, f"{stale:g}: while Redis is away, {opens}")
    yield from _redis(config)
    yield from _folders(config)
    yield from _entrances(config)
    yield from _ports(config)


def _dial_strings(config: Config, name: str, switch: Switch) -> Iterator[Result]:
    dial = config.dial
    listed = [("dial.extension", dial.extension)]
    listed += [(f"dial.external[{i}]", text) for i, text in enumerate(dial.external)]
    listed += [("dial.emergency", dial.emergency)] if dial.emergency else []
    for key, text in listed:
        what = f"{key} on {name}"
        gateway = re.match(r"sofia/gateway/([^/]+)/", text)
        user = re.match(r"user/[^@]*@(.+)$", text)
        if gateway:
            yield _gateway(what, gateway[1], switch)
        elif user:
            yield _domain(what, user[1], switch)
        else:
            yield Result(what, True, f"{text}: not a gateway or a user, taken as it is")


def _gateway(what: str, gateway: str, switch: Switch) -> Result:
    output = switch.api(f"sofia status gateway {gateway}")
    if "Invalid Gateway" in output:
        return Result(what, False, f"the switch has no gateway {gateway}")
    status = re.search(r"^Status\s+(\S+)", output, re.MULTILINE)
    up = status is None or status[1] == "UP"
    return Result(what, up, f"gateway {gateway} is {status[1].lower() if status else 'there'}")


def _domain(what: str, domain: str, switch: Switch) -> Result:
    if "{" in domain:
        return Result(what, True, "a domain by number, taken as it is")
    try:
        there = switch.api(f"domain_exists {domain}").strip() == "true"
    except ReplyError as error:
        # The sandbox has no directory.
        unknown = "not found" in str(error)
        return Result(what, unknown, f"domain {domain}: this switch can't tell" if unknown else str(error))
    return Result(what, there, f"domain {domain} " + ("is there" if there else "is not in the switch's directory"))


def _redis(config: Config) -> Iterator[Result]:
    urls = {config.redis.url: "redis.url"}
    for i, one in enumerate(config.integrators):
        if one.redis is not None:
            urls.setdefault(one.redis.url, f"integrators[{i}].redis.url")
    for url, key in urls.items():
        try:
            redis_client.connect(url).ping()
        except (ValueError, StoreUnavailable) as error:
            yield Result(key, False, str(error).removeprefix("redis: "))
        else:
            yield Result(key, True, "answers")


def _folders(config: Config) -> Iterator[Result]:
    try:
        yield Result("node.state_dir", True, str(state_folder(config)))
    except ConfigError as error:
        yield Result("node.state_dir", False, str(error))
    for key, folder, needed in (
        ("recordings.dir", config.recordings.dir, any(one.record for one in config.integrators)),
        ("spool.dir", config.spool.dir, False),
    ):
        if not os.path.isdir(folder):
            mend = "make it, writable by the switch" if needed else "not there yet; the switch makes it when it writes"
            yield Result(key, not needed, f"{folder}: {mend}")
        elif not os.access(folder, os.R_OK | os.X_OK):
            yield Result(key, False, f"{folder}: this user can't read it")
        else:
            yield Result(key, True, folder)
    path = prompt_path(config.prompts.dir, config.prompts.language, "unavailable", 8000)
    yield Result("prompts", Path(path).exists(), path)


#: The PIN of the shipped example, which everybody can read.
_EXAMPLE_PIN = "4821907356"


def _entrances(config: Config) -> Iterator[Result]:
    """What stands between a stranger and the operator's bill."""
    cccp = config.cccp
    meaning = {
        "any": "whoever shows an enrolled number dials, and a shown number proves nothing",
        "national": "a caller known by number alone dials at home only; who shows an enrolled number spends at home",
        "pin": "a number alone opens nothing; everybody is asked for a PIN",
        "attested": f"a number opens where {cccp.attest_header}, from an address of trust, says that STIR/SHAKEN "
        f"verified it (level {cccp.attest_level} or better); everybody else is asked for a PIN",
    }
    yield from _spending(config)
    yield Result("cccp.cid_trust", True, f"{cccp.cid_trust}: {meaning[cccp.cid_trust]}")
    if cccp.cid_trust == "attested" and not config.trust:
        yield Result("trust", False, "empty: nobody's attestation is believed, and so everybody is asked for a PIN")
    if cccp.pin_from == "enrolled":
        yield Result("cccp.pin_from", True, "enrolled: a PIN opens only from a number enrolled with its account")
    guard = config.pin_guard
    yield Result(
        "pin_guard",
        True,
        f"in {guard.window:g} s, {guard.per_number} wrong PINs lock a caller and {guard.per_service} a service; "
        f"first for {guard.lock:g} s, then twice as long each time",
    )
    for account_id, account in config.accounts.items():
        for name, disa in account.disa.items():
            what = f"accounts.{account_id}.disa.{name}"
            if disa.pin == _EXAMPLE_PIN:
                yield Result(what, False, "its PIN is the example's, which everybody can read: change it")
            elif not (disa.pin or disa.pin_hash):
                yield Result(what, True, "no PIN: whoever calls it dials as this account")
            elif disa.pin and len(disa.pin) < _SHORT_PIN:
                yield Result(what, False, f"its PIN is shorter than {_SHORT_PIN} digits: it is guessed in a night")
            else:
                yield Result(what, True, "asks for a PIN")


def _spending(config: Config) -> Iterator[Result]:
    breakers = thresholds(config)
    levels = [("spending", config.spending.limits)]
    levels += [(f"integrator {one.name}", one.limits) for one in config.integrators]
    levels += [(f"account {id}", account.limits) for id, account in config.accounts.items()]
    limited = [name for name, limits in levels if limits != Limits()]
    if not breakers and not limited:
        return  # A warning of the configuration says so.
    found = ", ".join([*(f"limits of {name}" for name in limited), *(f"breaker {scope}" for scope in breakers)])
    yield Result("spending", True, f"{found}; {len(config.high_risk())} high-risk ranges")


def _ports(config: Config) -> Iterator[Result]:
    """Which tokens others on the way can read."""
    for path, section in sections(config):
        if section.tls is not None:
            message = f"TLS with {section.tls.cert}"
        elif is_loopback(split_address(section.listen)[0]):
            message = "plain HTTP, on this machine alone"
        else:
            continue  # A warning of the configuration says so.
        yield Result(f"{path}.listen", True, f"{section.listen}: {message}")


#: Digits. Shorter ones fall to a dialler that tries three a call.
_SHORT_PIN = 6


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
