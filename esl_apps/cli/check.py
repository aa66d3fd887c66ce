"""``esl-apps check``: everything that a configuration names, tried, one line each."""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

from esl_apps.cli import browser_profiles, service_unit, transfer_profiles
from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import printable, report, report_json
from esl_apps.config import warnings
from esl_apps.config.model import Config, Disa, sections
from esl_apps.config.problems import ConfigError
from esl_apps.config.spending import Limits
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl.answers import ReplyError, SwitchFailed
from esl_apps.esl.switch import Switch
from esl_apps.net import tls
from esl_apps.net.address import is_loopback, split_address
from esl_apps.net.post import Failed
from esl_apps.net.resolver import Resolver
from esl_apps.node import descriptors, recording_expiry
from esl_apps.node.policy import own_settings
from esl_apps.node.spoken import Spoken, chosen
from esl_apps.node.state_folder import state_folder
from esl_apps.node.switch_sounds import asking
from esl_apps.node.webhooks import poster
from esl_apps.operations.breakers import thresholds
from esl_apps.process.mounts import remote_type
from esl_apps.prompts import COMPLETE, missing, prompt_path, recorded
from esl_apps.store import redis_client, server
from esl_apps.store.webhook_queue import targets

OK, WARN, FAIL = "ok", "WARN", "FAIL"
#: Seconds for a switch to answer. One that refuses the connection is reported at once.
WAIT = 5.0
#: Seconds without an answer after which the operator is told what is being tried.
SILENCE = 0.5


@dataclass(frozen=True)
class Result:
    what: str
    level: str
    message: str


def run(config: Config, arguments: argparse.Namespace) -> int:
    """Print the results as they come in; ``Exit.FAILED`` if one of them is."""
    failed = False
    for result in read(config) if arguments.offline else try_everything(config):
        failed = failed or result.level == FAIL
        _print(result, arguments.json)
    return Exit.FAILED if failed else Exit.OK


def print_problems(error: ConfigError, *, as_json: bool) -> int:
    """Print what is wrong with a configuration that can't be used."""
    for problem in error.problems:
        _print(Result("configuration", FAIL, str(problem)), as_json)
    return Exit.FAILED


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        report_json({**asdict(result), "level": result.level.lower()})
    else:
        report(printable(f"{result.level:<4} {result.what}: {result.message}"))


def read(config: Config) -> Iterator[Result]:
    """Report what the file alone says."""
    yield Result("configuration", OK, "read")
    for problem in warnings(descriptors.fit(config, service_unit.descriptors() or descriptors.limit())):
        yield Result(problem.key, WARN, problem.message)
    yield from _applications(config)


def try_everything(config: Config) -> Iterator[Result]:
    yield from read(config)
    for switch in config.switches:
        yield from _switch(config, Switch(switch.name, split_address(switch.address), switch.password), switch.address)
    yield _gate(config)
    stale = config.redis.stale_cards
    opens = f"a card that it read less than {stale:g} s before still opens" if stale else "no card opens anything"
    yield Result("redis.stale_cards", OK, f"{stale:g}: while Redis is down, {opens}")
    yield from _redis(config)
    yield from _webhooks(config)
    yield from _folders(config)
    yield from _prompts(config)
    yield from _entrances(config)
    yield from _ports(config)


def _applications(config: Config) -> Iterator[Result]:
    try:
        for ref in own_settings(config):
            yield Result(f"applications.{ref}", OK, "read")
    except ConfigError as error:
        yield from (Result(problem.key, FAIL, problem.message) for problem in error.problems)


@contextmanager
def _announced(what: str) -> Iterator[None]:
    """Tell the operator what is being tried, if it takes long."""
    notice = threading.Timer(SILENCE, lambda: print(f"trying {what} ...", file=sys.stderr, flush=True))
    notice.start()
    try:
        yield
    finally:
        notice.cancel()


def _switch(config: Config, switch: Switch, address: str) -> Iterator[Result]:
    what = f"switch {switch.name}"
    switch.start()
    try:
        with _announced(f"{what} at {address}, for {WAIT:g} s at most"):
            refused = _connect(switch)
        if refused is not None:
            yield Result(what, FAIL, f"{address}: {refused}")
            return
        yield Result(what, OK, f"{address}: {_first_line(switch.api('version'))}")
        yield from _dial_strings(config, switch.name, switch)
        yield from _recordings(config, switch)
        yield from _transfers(config, switch)
        yield from _callers(switch)
        if any(integrator.phone for integrator in config.integrators):
            yield from _browsers(switch)
    except SwitchFailed as error:
        yield Result(what, FAIL, str(error))
    finally:
        switch.stop()


def _gate(config: Config) -> Result:
    """Report who may connect to the event socket."""
    node = config.node
    if node.allow is not None:
        allowed = ", ".join(node.allow)
    else:
        switches = sorted({split_address(switch.address)[0] for switch in config.switches})
        allowed = ", ".join(["this machine", *switches])
    proof = "with node.secret" if node.secret else "no secret asked for"
    return Result("node.allow", OK, f"{allowed} may connect to {node.listen}, {proof}")


def _connect(switch: Switch) -> str | None:
    """Return None once it is connected, or why the first try failed."""
    untried = switch.last_error
    deadline = time.monotonic() + WAIT
    while not switch.wait_up(0.05):
        if switch.last_error != untried:
            reason = re.sub(r"^\[Errno -?\d+\] ", "", str(switch.last_error))
            # Another kind of server may listen there, and wait for its client to speak.
            hint = "; is FreeSWITCH running, with mod_event_socket on this address?"
            silent = "Connection refused" in reason or "timed out" in reason
            return reason + hint if silent else reason
        if time.monotonic() > deadline:
            return f"no answer within {WAIT:g} s"
    return None


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
            yield Result(what, OK, f"{text}: not a gateway or a user, not checked")


def _judged(what: str, good: bool, message: str) -> Result:
    return Result(what, OK if good else FAIL, message)


def _gateway(what: str, gateway: str, switch: Switch) -> Result:
    output = switch.api(f"sofia status gateway {gateway}")
    if "Invalid Gateway" in output:
        return Result(what, FAIL, f"the switch has no gateway {gateway}")
    status = re.search(r"^Status\s+(\S+)", output, re.MULTILINE)
    up = status is None or status[1] == "UP"
    return _judged(what, up, f"gateway {gateway} is {status[1].lower() if status else 'there'}")


def _domain(what: str, domain: str, switch: Switch) -> Result:
    if "{" in domain:
        return Result(what, OK, "a domain by number, not checked")
    try:
        there = switch.api(f"domain_exists {domain}").strip() == "true"
    except ReplyError as error:
        # The sandbox has no directory.
        unknown = "not found" in str(error)
        return _judged(what, unknown, f"domain {domain}: this switch can't tell" if unknown else str(error))
    return _judged(what, there, f"domain {domain} " + ("is there" if there else "is not in the switch's directory"))


def _transfers(config: Config, switch: Switch) -> Iterator[Result]:
    """Report whether agents' phones can transfer, and whether others can."""
    what = f"transfer keys on {switch.name}"
    try:
        there = transfer_profiles.has_context(switch.api(transfer_profiles.CONTEXT))
        trunks = transfer_profiles.trunks_of([*config.dial.external, config.dial.emergency or ""])
        unsafe = transfer_profiles.open_profiles(switch.api(browser_profiles.COMMAND), trunks)
    except (ReplyError, ElementTree.ParseError) as error:
        # The sandbox has no XML.
        yield _untold(what, error)
        return
    missing = "the context esl_apps_refer isn't there, so every transfer is refused; install 00_esl_apps_refer.xml"
    yield Result(what, OK if there else WARN, "the context esl_apps_refer leads to a node" if there else missing)
    for profile in unsafe:
        message = (
            "a far end can have the switch dial any number and run any command; "
            "set disable-transfer to true and restart the profile"
        )
        yield Result(f"{what}, profile {profile}", WARN, message)


def _callers(switch: Switch) -> Iterator[Result]:
    """Report in which SIP profiles anyone may call."""
    what = f"callers of {switch.name}"
    try:
        unsafe = transfer_profiles.profiles_for_anyone(switch.api(browser_profiles.COMMAND))
    except (ReplyError, ElementTree.ParseError) as error:
        # The sandbox has no SIP profiles.
        yield _untold(what, error)
        return
    if not unsafe:
        yield Result(what, OK, "each SIP profile asks for a password or lists addresses")
    for profile in unsafe:
        message = (
            "anyone may call, and an INVITE with Replaces may run commands on the switch (hazard 47); "
            "set apply-inbound-acl to your trunks' addresses and restart the profile"
        )
        yield Result(f"{what}, profile {profile}", WARN, message)


def _untold(what: str, error: Exception) -> Result:
    return Result(what, OK, f"this switch can't tell ({_first_line(str(error))})")


def _browsers(switch: Switch) -> Iterator[Result]:
    """Report what the switch's SIP profiles lack for phones in browsers."""
    what = f"phones in browsers on {switch.name}"
    try:
        found = browser_profiles.profiles(switch.api(browser_profiles.COMMAND))
    except (ReplyError, browser_profiles.Unreadable) as error:
        # The sandbox has no SIP profiles.
        yield _untold(what, error)
        return
    if not found:
        yield Result(what, FAIL, "no SIP profile has a ws-binding or a wss-binding, so no browser can register")
    for profile in found:
        bindings, lists = ", ".join(profile.bindings), ", ".join(profile.candidates)
        good = f"{bindings}; audio goes to addresses of {lists}"
        yield Result(f"{what}, profile {profile.name}", WARN if profile.fault else OK, profile.fault or good)


def _redis(config: Config) -> Iterator[Result]:
    urls = {config.redis.url: "redis.url"}
    for i, integrator in enumerate(config.integrators):
        if integrator.redis is not None:
            urls.setdefault(integrator.redis.url, f"integrators[{i}].redis.url")
    for url, key in urls.items():
        try:
            with _announced(key):
                client = redis_client.connect(url)
                names = sorted({server.name_of(master) for master in client.masters()})
                findings = list(server.examine(client, records_only=url != config.redis.url))
        except (ValueError, StoreUnavailable) as error:
            yield Result(key, FAIL, str(error).removeprefix("redis: "))
            continue
        yield Result(key, OK, f"answers: {', '.join(filter(None, names)) or 'an unknown version'}")
        yield from (Result(key, FAIL if fatal else WARN, message) for fatal, message in findings)


def _webhooks(config: Config) -> Iterator[Result]:
    """Connect to the receivers, and post nothing."""
    for target in targets(config):
        what = f"webhook {target.webhook.name}"
        try:
            with _announced(f"{what} at {target.host}"):
                address = poster(target.webhook, Resolver(1)).try_connection()
        except Failed as error:
            yield Result(what, FAIL, str(error))
        else:
            yield Result(what, OK, f"{target.host}: connects to {address}")


def _folders(config: Config) -> Iterator[Result]:
    try:
        state = state_folder(config)
        if kind := remote_type(state):
            yield Result("node.state_dir", WARN, f"{state}: on {kind}; a node stops while that hangs, use a local disk")
        else:
            yield Result("node.state_dir", OK, str(state))
        with suppress(OSError):  # a node is using it
            # The node may run as another user, who couldn't write to a folder of this one's.
            state.rmdir()
            state.parent.rmdir()
    except ConfigError as error:
        yield Result("node.state_dir", FAIL, error.problems[0].message)
    records = any(integrator.record for integrator in config.integrators)
    for key, folder, needed, mend in (
        ("recordings.dir", config.recordings.dir, records, "make it, writable by the switch"),
        ("spool.dir", config.spool.dir, False, ""),
        ("prompts.dir", config.prompts.dir, True, "not there, so this package's own prompts would be played"),
    ):
        if folder is None:
            continue
        if not os.path.isdir(folder):
            why = mend if needed else "not there yet; the switch makes it when it writes"
            yield _judged(key, not needed, f"{folder}: {why}")
        elif not os.access(folder, os.R_OK | os.X_OK):
            yield Result(key, FAIL, f"{folder}: this user can't read it")
        elif key == "spool.dir" and not os.access(folder, os.W_OK):
            yield Result(key, WARN, f"{folder}: this user can't delete files in it, so those that are done with stay")
        elif key == "recordings.dir" and (closed := recording_expiry.closed_folder(config)) is not None:
            yield Result(key, FAIL, f"{closed}: this user can't delete recordings in it, as the configuration says")
        elif (key == "spool.dir" or recording_expiry.deletes(config)) and service_unit.forbids(folder):
            message = f"{folder}: the systemd unit keeps a node from deleting in it; {service_unit.remedy(folder)}"
            yield Result(key, WARN, message)
        else:
            yield Result(key, OK, folder)


def _prompts(config: Config) -> Iterator[Result]:
    """Report what each language that the configuration names lacks."""
    try:
        Spoken(config, config.plan())
    except ConfigError as error:
        yield from (Result(problem.key, FAIL, problem.message) for problem in error.problems)
        return
    for language in sorted({language for _path, language in chosen(config)}):
        what, lacks = f"prompts in {language}", missing(config.prompts.dir, language)
        path = prompt_path(config.prompts.dir, [language], "unavailable", 8000)
        if not Path(path).exists():
            yield Result(what, FAIL, f"{path}: not there")
        elif lacks:
            other = config.prompts.language if language != config.prompts.language else COMPLETE
            yield Result(what, WARN, f"spoken in {other}, because they are not there: {', '.join(lacks)}")
        else:
            yield Result(what, OK, "all there")


def _recordings(config: Config, switch: Switch) -> Iterator[Result]:
    """Report which recordings of FreeSWITCH's a switch has."""
    if not config.prompts.recorded:
        return
    named = sorted({language for _path, language in chosen(config)})
    found = recorded.look(asking(switch), named)
    counts = {language: sum(1 for of, _name in found if of == language) for language in named}
    told = [f"{language}: {count or 'none'}" for language, count in counts.items()]
    rest = "" if all(counts.values()) else "; without freeswitch-sounds-… the package's own voice speaks"
    yield Result(f"recorded prompts on {switch.name}", OK, f"{', '.join(told)}{rest}")


#: The PIN of the shipped example, which anyone can read.
_EXAMPLE_PIN = "4821907356"
#: Digits. A dialler that tries three PINs per call finds a shorter one in a night.
_SHORT_PIN = 6


def _entrances(config: Config) -> Iterator[Result]:
    """Report whatever keeps strangers from running up the operator's bill."""
    cccp = config.cccp
    meaning = {
        "any": "any caller who shows an enrolled number may dial, and a shown number proves nothing",
        "national": "a caller known by number alone dials at home only, and a shown number proves nothing",
        "pin": "a number alone opens nothing; every caller is asked for a PIN",
        "attested": f"a number opens if {cccp.attest_header}, from an address of trust, says that STIR/SHAKEN "
        f"verified it (level {cccp.attest_level} or better); other callers are asked for a PIN",
    }
    yield from _spending(config)
    yield Result("cccp.cid_trust", OK, f"{cccp.cid_trust}: {meaning[cccp.cid_trust]}")
    if cccp.cid_trust == "attested" and not config.trust:
        yield Result("trust", FAIL, "empty: no attestation is believed, so every caller is asked for a PIN")
    if cccp.pin_from == "enrolled":
        yield Result("cccp.pin_from", OK, "enrolled: a PIN opens only from a number enrolled with its account")
    guard = config.pin_guard
    yield Result(
        "pin_guard",
        OK,
        f"in {guard.window:g} s, {guard.per_number} wrong PINs lock a caller and {guard.per_service} a service; "
        f"first for {guard.lock:g} s, then twice as long each time",
    )
    for account_id, account in config.accounts.items():
        for name, disa in account.disa.items():
            yield _disa(f"accounts.{account_id}.disa.{name}", disa)


def _disa(what: str, disa: Disa) -> Result:
    if disa.pin == _EXAMPLE_PIN:
        return Result(what, FAIL, "its PIN is the example's, which anyone can read: change it")
    if not (disa.pin or disa.pin_hash):
        return Result(what, WARN, "no PIN: anyone who calls it dials as this account")
    if disa.pin and len(disa.pin) < _SHORT_PIN:
        return Result(what, FAIL, f"its PIN is shorter than {_SHORT_PIN} digits: it can be guessed in a night")
    return Result(what, OK, "asks for a PIN")


def _spending(config: Config) -> Iterator[Result]:
    breakers = thresholds(config)
    levels = [("spending", config.spending.limits)]
    levels += [(f"integrator {integrator.name}", integrator.limits) for integrator in config.integrators]
    levels += [(f"account {id}", account.limits) for id, account in config.accounts.items()]
    limited = [name for name, limits in levels if limits != Limits()]
    if not breakers and not limited:
        return  # A warning of the configuration says so.
    bounds = ", ".join([*(f"limits of {name}" for name in limited), *(f"breaker {scope}" for scope in breakers)])
    yield Result("spending", OK, f"{bounds}; {len(config.high_risk())} high-risk ranges")


def _ports(config: Config) -> Iterator[Result]:
    """Whether the tokens that these ports take can be read on the network."""
    for path, section in sections(config):
        if section.tls is not None:
            yield _certificate(f"{path}.listen", section.listen, section.tls.cert)
            continue
        if is_loopback(split_address(section.listen)[0]):
            message = "plain HTTP, on this machine only"
        else:
            continue  # A warning of the configuration says so.
        yield Result(f"{path}.listen", OK, f"{section.listen}: {message}")


def _certificate(what: str, listen: str, cert: str) -> Result:
    try:
        validity = tls.validity(cert)
    except tls.Unusable as error:
        return Result(what, FAIL, str(error))
    message = f"{listen}: TLS with {cert}"
    if not validity.is_due:
        return Result(what, OK, message)
    days = (validity.end - time.time()) / 86400
    end = f"expires in {days:.0f} days" if days > 0 else "has expired"
    return Result(what, WARN, f"{message}, which {end}; renew it and reload")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
