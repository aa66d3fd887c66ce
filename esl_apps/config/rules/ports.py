"""Rules for addresses: where the node listens, and where it finds switches and Redis."""

from __future__ import annotations

from collections.abc import Iterator

from esl_apps.config import redis_url
from esl_apps.config.model import Admin, Integrator
from esl_apps.config.rules import context
from esl_apps.config.rules.context import Context, Finding
from esl_apps.net import tls
from esl_apps.net.address import split_address


def addresses_are_host_and_port(c: Context) -> Iterator[Finding]:
    node = c.config.node
    yield from context.address(node.listen, "node.listen")
    if node.advertise:
        yield from context.address(node.advertise, "node.advertise")
    for i, text in enumerate(c.config.dialplan.nodes):
        yield from context.address(text, f"dialplan.nodes[{i}]")
    for path, listen in _http_ports(c):
        yield from context.address(listen, path)


def nothing_listens_twice(c: Context) -> Iterator[Finding]:
    taken: dict[tuple[str, int], str] = {}
    for path, text in [("node.listen", c.config.node.listen), *_http_ports(c)]:
        try:
            address = split_address(text)
        except ValueError:
            continue
        if address in taken and address[1] != 0:
            yield path, f"{text} is {taken[address]}'s already"
        taken.setdefault(address, path)


def redis_urls_can_be_read(c: Context) -> Iterator[Finding]:
    for path, url in c.redis_urls:
        try:
            redis_url.check(url)
        except ValueError as error:
            yield path, str(error)


def certificates_can_be_used(c: Context) -> Iterator[Finding]:
    for path, section in _http_sections(c):
        if section.tls is not None:
            try:
                tls.context(section.tls.cert, section.tls.key)
            except tls.Unusable as error:
                yield f"{path}.tls.{error.key}", str(error)


def trusted_networks_are_networks(c: Context) -> Iterator[Finding]:
    yield from context.networks(c.config.trust, "trust")
    yield from context.networks(c.config.node.allow or [], "node.allow")
    for path, integrator in c.draft.integrators:
        if integrator.legacy_get:
            yield from context.networks(integrator.legacy_get.allow, f"{path}.legacy_get.allow")


def _http_ports(c: Context) -> list[tuple[str, str]]:
    return [(f"{path}.listen", section.listen) for path, section in _http_sections(c)]


def _http_sections(c: Context) -> list[tuple[str, Admin | Integrator]]:
    return [("admin", c.config.admin), *c.draft.integrators]


def a_switch_may_connect(c: Context) -> Iterator[Finding]:
    if c.config.node.allow == []:
        yield "node.allow", "expected at least one address, or null: otherwise no call comes here"


RULES = (
    a_switch_may_connect,
    addresses_are_host_and_port,
    nothing_listens_twice,
    redis_urls_can_be_read,
    certificates_can_be_used,
    trusted_networks_are_networks,
)
