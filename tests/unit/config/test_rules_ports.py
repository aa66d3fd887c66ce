"""Addresses, Redis URLs, certificates, trusted networks."""

from __future__ import annotations

import json

import pytest

from tests.support import TLS
from tests.support.configurations import LEAST, instead, problems_of, read, refusal, refusal_of_integrator


@pytest.mark.parametrize(
    "address", ["127.0.0.1", ":8300", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1"]
)
@pytest.mark.parametrize("key", ["node.listen", "node.advertise", "admin.listen", "switches[0].address", "acme"])
def test_address_without_host_or_port_is_refused(key: str, address: str) -> None:
    changed = {
        "node.listen": ("{name: app1}", f'{{listen: "{address}"}}'),
        "node.advertise": ("{name: app1}", f'{{advertise: "{address}"}}'),
        "admin.listen": ("{token: t0ken}", f'{{token: t, listen: "{address}"}}'),
        "switches[0].address": ('"127.0.0.1:8021"', f'"{address}"'),
        "acme": ('"127.0.0.1:8300"', f'"{address}"'),
    }[key]
    assert f"{'integrators[0].listen' if key == 'acme' else key}: expected host:port" in instead(*changed)


def test_dialplan_node_without_port_is_refused() -> None:
    told = refusal('dialplan: {nodes: ["127.0.0.1:1", "127.0.0.1"]}\n')
    assert told == "f.yml:6: dialplan.nodes[1]: expected host:port"


def test_two_ports_on_one_address_are_refused() -> None:
    told = instead("{token: t0ken}", '{token: t, listen: "127.0.0.1:8084"}')
    assert told == "f.yml:2: admin.listen: 127.0.0.1:8084 is node.listen's already"
    told = refusal('  - {name: b, listen: "127.0.0.1:8300", token: t}\n')
    assert told == "f.yml:6: integrators[1].listen: 127.0.0.1:8300 is integrators[0].listen's already"


def test_ports_that_the_system_chooses_do_not_clash() -> None:
    made = read('  - {name: b, listen: "h:0", token: t}\n  - {name: c, listen: "h:0", token: t}\n')
    assert [integrator.listen for integrator in made.integrators[1:]] == ["h:0", "h:0"]


@pytest.mark.parametrize("key", ["redis", "integrators"])
def test_wrong_redis_url_is_refused(key: str) -> None:
    told = (
        refusal("redis: {url: 'http://h'}\n")
        if key == "redis"
        else refusal_of_integrator("redis: {url: 'http://h'}").replace("10: integrators[1].", "6: ")
    )
    forms = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
    assert told == f"f.yml:6: redis.url: expected {forms}"


def test_unusable_certificate_is_refused() -> None:
    told = problems_of(LEAST.replace("{token: t0ken}", "{token: t, tls: {cert: /no.pem, key: /no.key}}"))
    assert told == ["f.yml:2: admin.tls.cert: no such file: /no.pem"]
    files = json.dumps({"cert": str(TLS / "one.pem"), "key": str(TLS / "two.key")})
    assert refusal_of_integrator(f"tls: {files}").startswith("f.yml:10: integrators[1].tls.key: ")


def test_network_that_is_none_is_refused() -> None:
    told = "expected an address or a CIDR network"
    assert refusal("trust: [10.0.0.0/8, 10.0.0.0/33]\n") == f"f.yml:6: trust[1]: {told}"
    assert refusal("trust: [10.0.0.1/8]\n") == f"f.yml:6: trust[0]: {told}"
    assert (
        refusal_of_integrator("legacy_get: {allow: [localhost]}")
        == f"f.yml:10: integrators[1].legacy_get.allow[0]: {told}"
    )


def test_node_that_nothing_may_connect_to_is_refused() -> None:
    told = instead("{name: app1}", "{allow: []}")
    assert told == "f.yml:3: node.allow: expected at least one address, or null: otherwise no call comes here"
    assert instead("{name: app1}", "{allow: [fs1]}") == "f.yml:3: node.allow[0]: expected an address or a CIDR network"
    assert instead("{name: app1}", "{allow: [10.0.0.1/8]}").startswith("f.yml:3: node.allow[0]: ")
