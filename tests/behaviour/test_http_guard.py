"""Access to the HTTP ports: tokens, scopes, rates, TLS, links to recordings."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from esl_apps.config import parse
from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.config.tokens import hash_token
from esl_apps.core.reference import new_ref
from esl_apps.http.signed_links import Links
from esl_apps.net import tls
from esl_apps.process import files
from tests.rig.base import eventually
from tests.rig.sandbox import SandboxRig
from tests.support import TLS
from tests.support.http_checks import CALLS, NO_CALL, ORDER, RECORDINGS, check_answer, metric, refused, write_recording
from tests.support.node import ADMIN_TOKEN, TOKEN, UNBOUNDED, Answer, Node, RedisServer, configuration, request

LINK_KEY = "a-key-for-links-in-tests"
CARDS = "/v2/accounts/acme/cccps"
ACCOUNT_TOKEN = "account-token-for-tests"
#: Token name → scopes, on the integrator's port and on the admin port.
SCOPED = {"caller": ["call"], "wallboard": ["read"], "archive": ["record"], "both": ["read", "record"]}
OPERATORS = {"crm": ["cards"], "viewer": ["read"], "dialler": ["call"]}


def scoped(kinds: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Configure every second token by its hash."""
    return [
        {"name": name, "scopes": scopes}
        | ({"token": f"{name}-token"} if i % 2 else {"token_hash": hash_token(f"{name}-token")})
        for i, (name, scopes) in enumerate(kinds.items())
    ]


@pytest.fixture(scope="module")
def served(sandbox: SandboxRig, redis: RedisServer) -> Iterator[Node]:
    config = configuration(sandbox, redis, tokens=scoped(SCOPED))
    config["integrators"][0]["token_hash"] = hash_token(config["integrators"][0].pop("token"))
    config["admin"]["tokens"] = scoped(OPERATORS)
    config["pin_key"] = "pin-key-for-tests"
    config["recordings"]["link_key"] = LINK_KEY
    config["accounts"] = {"acme": {"token": ACCOUNT_TOKEN, "tokens": scoped({"clerk": ["read"]})}, "other": {}}
    node = Node(config)
    yield node
    node.end()


@pytest.fixture
def node(served: Node) -> Iterator[Node]:
    """The module's node; changes that a test makes to its configuration are taken back."""
    before = json.dumps(served.config)
    yield served
    if json.dumps(served.config) != before:
        served.config = json.loads(before)
        reload(served)


def reload(node: Node, wanted: str = "config_reloaded") -> None:
    told = node.reload(json.dumps(node.config))
    assert told.partition(":")[0] == wanted, told


# Tokens ---------------------------------------------------------------------------------------------------

LEAST = """\
switches: [{name: fs1, address: "127.0.0.1:8021", password: s3cret}]
admin: {token: t0ken}
integrators:
  - {name: acme, listen: "127.0.0.1:8300", token: t0ken}
"""


def read(**changes: str) -> Config:
    """Parse the smallest configuration with some of its texts replaced."""
    text = LEAST
    for old, new in changes.items():
        old = {"admin": "admin: {token: t0ken}", "acme": '"127.0.0.1:8300", token: t0ken}\n'}[old]
        assert old in text
        text = text.replace(old, new if old.startswith("admin") else f'"127.0.0.1:8300", {new}')
    return parse(text, {}, "f.yml")


def refusal(**changes: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(**changes)
    return str(caught.value)


def test_token_is_kept_only_as_its_hash() -> None:
    config = parse(
        LEAST.replace("{token: t0ken}", "{token: 0perator, tokens: [{name: a, token: s3cond, scopes: [read]}]}")
        + "accounts: {acme: {token: th1rd, tokens: [{name: b, token: f0urth, scopes: [cards]}]}}\n",
        {},
    )
    assert not re.search("t0ken|0perator|s3cond|th1rd|f0urth", repr(config))
    assert config.integrators[0].token_hash == "sha256:" + hashlib.sha256(b"t0ken").hexdigest()
    assert config.accounts["acme"].tokens[0].digest == hashlib.sha256(b"f0urth").digest()


HASH = hash_token("another")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"acme": f"token: t, token_hash: '{HASH}'}}\n"}, "f.yml:4: integrators[0].token_hash: expected token or"),
        ({"admin": f"admin: {{token: t, token_hash: '{HASH}'}}"}, "f.yml:2: admin.token_hash: expected token or"),
        ({"acme": f"token_hash: '{hash_token('')}'}}\n"}, "integrators[0].token_hash: is the hash of nothing"),
        ({"acme": "token_hash: 'md5:aa'}\n"}, "f.yml:4: integrators[0].token_hash: expected sha256: and 64 hex digits"),
        ({"acme": f"token_hash: '{HASH.upper()}'}}\n"}, "integrators[0].token_hash: expected sha256:"),
        ({"acme": "token: 'a b'}\n"}, "integrators[0].token: expected printable characters"),
        ({"acme": "token: 'é'}\n"}, "integrators[0].token: expected printable characters"),
        ({"acme": "token: t, tokens: [{name: a, scopes: [call]}]}\n"}, "integrators[0].tokens[0].token: missing"),
        ({"acme": "token: t, tokens: [{name: a, token: b, scopes: []}]}\n"}, "integrators[0].tokens[0].scopes: "),
        ({"acme": "token: t, tokens: [{name: a, token: b}]}\n"}, "integrators[0].tokens[0].scopes: missing"),
        (
            {"acme": "token: t, tokens: [{name: a, token: b, scopes: [cards]}]}\n"},
            "integrators[0].tokens[0].scopes[0]: expected call, read, record or record_delete",
        ),
        (
            {"admin": "admin: {token: t, tokens: [{name: a, token: b, scopes: [record]}]}"},
            "admin.tokens[0].scopes[0]: expected call, read, cards, operate or numbers",
        ),
        ({"acme": "token: t, tokens: [{name: a, token: t, scopes: [read]}]}\n"}, "is integrators[0]'s already"),
        (
            {"acme": "token: t, tokens: [{name: a, token: b, scopes: [read]}, {name: a, token: c, scopes: [read]}]}\n"},
            "integrators[0].tokens[1].name: a token above has this name",
        ),
        (
            {"acme": "token: t}\naccounts: {a: {tokens: [{name: x, token: t0ken, scopes: [read]}]}}\n"},
            "accounts.a.tokens[0].token: is admin's already",
        ),
        ({"acme": "token: t, rate: {per_token: 0}}\n"}, "integrators[0].rate.per_token: "),
        ({"acme": "token: t, rate: {per_second: 1}}\n"}, "integrators[0].rate.per_second: unknown key"),
        ({"acme": "token: t}\nrecordings: {link_key: short}\n"}, "recordings.link_key: expected 16 characters"),
    ],
)
def test_token_configured_wrongly_says_how(changes: dict[str, str], told: str) -> None:
    assert told in refusal(**changes)


def test_token_configured_by_hash_opens(node: Node) -> None:
    assert request(node.api, "GET", CALLS).status == 200
    assert request(node.api, "GET", CALLS, token=node.config["integrators"][0]["token_hash"]).status == 401


def test_token_removed_by_reload_is_refused_at_once(node: Node) -> None:
    host, _, port = node.api.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)

    def ask(token: str) -> int:
        connection.request("GET", CALLS, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        return answer.status

    assert (ask("wallboard-token"), ask("new-token")) == (200, 401)
    tokens = node.config["integrators"][0]["tokens"]
    tokens[:] = [one for one in tokens if one["name"] != "wallboard"]
    tokens.append({"name": "new", "token": "new-token", "scopes": ["read"]})
    next(one for one in tokens if one["name"] == "both")["scopes"] = ["record"]
    reload(node)
    # Also on the connection that is already open.
    assert (ask("wallboard-token"), ask("new-token"), ask("both-token")) == (401, 200, 403)
    connection.close()


# Scopes ---------------------------------------------------------------------------------------------------

NEEDS = [
    ("POST", CALLS, "call"),
    ("POST", f"{CALLS}?dry_run=1", "call"),
    ("DELETE", f"{CALLS}/{NO_CALL}", "call"),
    ("GET", CALLS, "read"),
    ("GET", f"{CALLS}/{NO_CALL}", "read"),
    ("GET", f"{RECORDINGS}/{NO_CALL}.wav", "record"),
    ("POST", f"{RECORDINGS}/{NO_CALL}.wav/link", "record"),
]


@pytest.mark.parametrize(("method", "path", "scope"), NEEDS)
@pytest.mark.parametrize("name", SCOPED)
def test_scope_opens_its_routes_only(
    node: Node, sandbox: SandboxRig, method: str, path: str, scope: str, name: str
) -> None:
    # The body is refused even with the right scope, so that neither dials.
    answer = request(node.api, method, path, {} if method == "POST" else None, token=f"{name}-token")
    if scope in SCOPED[name]:
        assert answer.status not in (401, 403)
    else:
        assert refused(answer, 403) == [("", "scope")]
        assert answer.json["errors"][0]["message"] == f"this token lacks the scope {scope}"
    assert sandbox.live_channels() == 0


def test_scope_missing_dials_nothing(node: Node, sandbox: SandboxRig) -> None:
    before = metric(node, 'esl_apps_requests_refused_total{status="403"}')
    calls = request(node.api, "GET", CALLS).json["calls"]
    assert refused(request(node.api, "POST", CALLS, ORDER, token="wallboard-token"), 403)
    assert request(node.api, "GET", CALLS).json["calls"] == calls
    eventually(lambda: metric(node, 'esl_apps_requests_refused_total{status="403"}') == before + 1)


OPERATORS_NEED = [
    ("GET", CARDS, {"cards", "read"}),
    ("GET", f"{CARDS}/{'0' * 32}", {"cards", "read"}),
    ("PUT", CARDS, {"cards"}),
    ("POST", f"{CARDS}/{'0' * 32}", {"cards"}),
    ("PATCH", f"{CARDS}/{'0' * 32}", {"cards"}),
    ("DELETE", f"{CARDS}/{'0' * 32}", {"cards"}),
    ("PUT", f"{CARDS}/autodial", {"call"}),
]


@pytest.mark.parametrize(("method", "path", "scopes"), OPERATORS_NEED)
def test_scope_on_the_admin_port_opens_its_routes_only(node: Node, method: str, path: str, scopes: set[str]) -> None:
    for token, has in [*((f"{name}-token", has) for name, has in OPERATORS.items()), ("clerk-token", ["read"])]:
        answer = request(node.admin, method, path, {"data": {}} if method[0] == "P" else None, token=token)
        if scopes & set(has):
            assert answer.status not in (401, 403), token
        else:
            assert answer.status == 403, token
            message = f"this token lacks the scope {' or '.join(sorted(scopes, reverse=True))}"
            assert answer.json["data"] == {"request": {"scope": {"message": message}}}
            assert (answer.json["error"], answer.json["message"]) == ("403", "forbidden")


def test_token_of_an_account_opens_that_account_only(node: Node) -> None:
    for token in (ACCOUNT_TOKEN, "clerk-token"):
        assert request(node.admin, "GET", CARDS, token=token).status == 200
        assert request(node.admin, "GET", CARDS.replace("acme", "other"), token=token).status == 401
        assert request(node.api, "GET", CALLS, token=token).status == 401
    for token in (ADMIN_TOKEN, "viewer-token"):
        assert request(node.admin, "GET", CARDS.replace("acme", "other"), token=token).status == 200
    assert request(node.admin, "GET", CARDS.replace("acme", "nobody"), token="viewer-token").status == 404
    assert request(node.admin, "GET", CARDS.replace("acme", "nobody"), token=ACCOUNT_TOKEN).status == 401


# Rates ----------------------------------------------------------------------------------------------------


def test_rate_limit_exceeded_dials_nothing(node: Node, sandbox: SandboxRig) -> None:
    document, operators = (
        request(address, "GET", "/openapi.json", token=None).json for address in (node.api, node.admin)
    )
    node.config["integrators"][0]["rate"] = {"per_token": 0.001, "per_address": 0.005, "burst": 1000, "failed": None}
    node.config["admin"]["rate"] = {**UNBOUNDED, "per_token": 0.001}
    reload(node)
    before = metric(node, 'esl_apps_requests_refused_total{status="429"}')
    assert request(node.api, "GET", CALLS).status == 200
    answer = request(node.api, "POST", CALLS, ORDER)
    assert refused(answer, 429) == [("", "too_many")]
    assert 980 <= int(answer.headers["retry-after"]) <= 1000
    check_answer(document, CALLS, "post", answer)
    check_answer(document, CALLS, "post", request(node.api, "POST", CALLS, ORDER, token="wallboard-token"))
    # Two of the address's five requests are left; then even routes without a token are refused.
    assert [request(node.api, "GET", "/nothing", token=None).status for _ in range(3)] == [404, 404, 429]
    eventually(lambda: metric(node, 'esl_apps_requests_refused_total{status="429"}') == before + 2)
    assert sandbox.live_channels() == 0
    assert request(node.admin, "GET", CARDS, token=ADMIN_TOKEN).status == 200
    theirs = request(node.admin, "GET", CARDS, token=ADMIN_TOKEN)
    assert theirs.status == 429
    assert int(theirs.headers["retry-after"]) >= 980
    assert theirs.json["data"] == {"request": {"too_many": {"message": "too many requests with this token"}}}
    check_answer(operators, "/v2/accounts/{account_id}/cccps", "get", theirs)
    assert request(node.admin, "GET", "/healthz", token=None).status == 200


def test_rate_limit_client_that_waits_is_served(node: Node) -> None:
    node.config["integrators"][0]["rate"] = {**UNBOUNDED, "per_token": 1, "burst": 1}
    reload(node)
    # Not the previous test's token: the bucket it emptied is still empty.
    answers = [request(node.api, "GET", CALLS, token="both-token") for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    time.sleep(int(answers[1].headers["retry-after"]))
    assert request(node.api, "GET", CALLS, token="both-token").status == 200


# Floods ---------------------------------------------------------------------------------------------------

FLOODS = {
    "requests": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 5000,
    "descriptions": b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 500,
    "headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: b\r\n" * 99 + b"\r\n") * 200,
    "chunks": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 3000 + b"0\r\n\r\n"
    )
    * 10,
}


def on_cpu(node: Node) -> float:
    """Return the seconds of a processor that a node has used: unlike time, they don't depend on other processes."""
    assert node.process is not None
    return int(Path(f"/proc/{node.process.pid}/schedstat").read_text().split()[0]) / 1e9


@pytest.mark.parametrize("kind", FLOODS)
def test_flood_on_one_port_leaves_the_node_fast(node: Node, kind: str) -> None:
    # The node's ports have no rates: nothing but turns holds the flood back.
    host, _, port = node.api.rpartition(":")
    over = threading.Event()
    answered: list[int] = []

    def read(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := sock.recv(1 << 20):
                answered.append(len(data))

    def flood() -> None:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 10) as sock:
            reader = threading.Thread(target=read, args=[sock])
            reader.start()
            while not over.is_set():
                sock.sendall(FLOODS[kind])
            sock.shutdown(socket.SHUT_RDWR)
            reader.join()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        eventually(lambda: answered)
        used = []
        for _ in range(100):
            before = on_cpu(node)
            assert request(node.admin, "GET", "/healthz", token=None).status == 200
            used.append(on_cpu(node) - before)
    finally:
        over.set()
        thread.join()
    # Seconds that the node worked on the flood before it answered. Without turns, the first answer takes a whole flood.
    assert sorted(used)[98] < 0.05


# Links ----------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(sandbox: SandboxRig, node: Node) -> tuple[str, bytes]:
    return write_recording(sandbox, "acme")


def link(node: Node, name: str, body: object, token: str = "archive-token") -> Answer:
    return request(node.api, "POST", f"{RECORDINGS}/{name}/link", body, token=token)


def test_link_opens_its_recording_until_it_expires(node: Node, recorded: tuple[str, bytes]) -> None:
    name, whole = recorded
    answer = link(node, name, {"expires_in": 60})
    assert answer.status == 200
    assert abs(answer.json["expires_at"] - time.time() - 60) < 10
    assert int(parse_qs(urlsplit(answer.json["url"]).query)["expires"][0]) == answer.json["expires_at"]
    url = answer.json["url"]
    assert request(node.api, "GET", url, token=None).body == whole
    assert request(node.api, "GET", url, token=None, Range="bytes=0-3").body == whole[:4]
    check_answer(request(node.api, "GET", "/openapi.json").json, f"{RECORDINGS}/{{name}}/link", "post", answer)
    assert request(node.api, "GET", url.partition("?")[0], token=None).status == 401


def test_link_expired_is_refused(node: Node, recorded: tuple[str, bytes]) -> None:
    query = Links(LINK_KEY, "acme").query(recorded[0], int(time.time()) - 1)
    answer = request(node.api, "GET", f"{RECORDINGS}/{recorded[0]}?{query}", token=None)
    assert refused(answer, 403) == [("", "expired")]


def test_link_changed_is_refused(node: Node, sandbox: SandboxRig, recorded: tuple[str, bytes]) -> None:
    name, other = recorded[0], write_recording(sandbox, "acme")[0]
    at = int(time.time()) + 60
    good = parse_qs(Links(LINK_KEY, "acme").query(name, at))["signature"][0]
    foreign = parse_qs(Links(LINK_KEY, "beta").query(name, at))["signature"][0]
    another_key = parse_qs(Links(LINK_KEY + "x", "acme").query(name, at))["signature"][0]
    without = request(node.api, "GET", f"{RECORDINGS}/{name}", token=None)
    assert without.status == 401
    for path, expires, signature in [
        (name, at + 1, good),
        (name, f"0{at}", good[:-1]),
        (name, f"{at}.0", good),
        (name, "", good),
        (name, f"+{at}", good),
        (name, f"{at}%0A", good),
        (name, "9" * 5000, good),
        (name, at, ""),
        (name, at, "0" * 64),
        (name, at, good[:63]),
        (name, at, good + "0"),
        (name, at, good.upper()),
        (name, at, "%C3%A9"),
        (name, at, "%FF"),
        (name, at, foreign),
        (name, at, another_key),
        (other, at, good),
    ]:
        query = f"?expires={expires}&signature={signature}"
        answer = request(node.api, "GET", f"{RECORDINGS}/{path}{query}", token=None)
        assert (answer.status, answer.body) == (401, without.body), query
    # A link opens no other method and no other resource; a token opens despite any link next to it.
    query = f"?expires={at}&signature={good}"
    assert request(node.api, "GET", f"{RECORDINGS}/{name}{query}", token=None).status == 200
    assert request(node.api, "POST", f"{RECORDINGS}/{name}/link{query}", {}, token=None).status == 401
    assert request(node.api, "GET", f"{CALLS}{query}", token=None).status == 401
    assert request(node.api, "GET", f"{RECORDINGS}/{name}?expires=1&signature=x", token="archive-token").status == 200


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"expires_in": 0}, ("expires_in", "range")),
        ({"expires_in": -1}, ("expires_in", "range")),
        ({"expires_in": 604801}, ("expires_in", "range")),
        ({"expires_in": 1.5}, ("expires_in", "range")),
        ({"expires_in": True}, ("expires_in", "range")),
        ({"expires_in": "60"}, ("expires_in", "range")),
        ({"expires_in": None}, ("expires_in", "range")),
        ({"expires": 5}, ("expires", "unknown")),
        ([], ("", "type")),
    ],
)
def test_link_asked_for_wrongly_is_422(
    node: Node, recorded: tuple[str, bytes], body: object, fault: tuple[str, str]
) -> None:
    data = body if isinstance(body, dict) else json.dumps(body).encode()
    assert refused(link(node, recorded[0], data), 422) == [fault]


def test_link_to_a_missing_recording_is_404(node: Node) -> None:
    for name in (f"{NO_CALL}.wav", "..", "%2e%2e%2fx", f"{new_ref()}.wav"):
        assert refused(link(node, name, {}), 404) == [("", "not_found")]


def test_link_guessed_signature_counts_as_a_wrong_token(node: Node, recorded: tuple[str, bytes]) -> None:
    node.config["integrators"][0]["rate"] = {**UNBOUNDED, "failed": 0.001, "burst": 3000}
    reload(node)
    query = Links(LINK_KEY, "acme").query(recorded[0], int(time.time()) + 60)
    guess = f"{RECORDINGS}/{recorded[0]}?expires=9999999999&signature={'0' * 64}"
    assert [request(node.api, "GET", guess, token=None).status for _ in range(5)] == [401, 401, 401, 429, 429]
    assert request(node.api, "GET", f"{RECORDINGS}/{recorded[0]}?{query}", token=None).status == 429


def test_link_without_link_key_is_404(node: Node, recorded: tuple[str, bytes]) -> None:
    url = link(node, recorded[0], {}).json["url"]
    assert request(node.api, "GET", url, token=None).status == 200
    del node.config["recordings"]["link_key"]
    reload(node)
    assert refused(link(node, recorded[0], {}), 404) == [("", "not_found")]
    assert request(node.api, "GET", url, token=None).status == 401


# TLS ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cert", "key", "told"),
    [
        ("one.pem", "two.key", "integrators[0].tls.key: doesn't belong to the certificate"),
        ("none.pem", "one.key", "integrators[0].tls.cert: no such file"),
        ("one.pem", "none.key", "integrators[0].tls.key: no such file"),
        ("one.key", "one.key", "integrators[0].tls.cert: expected a certificate in PEM"),
        ("one.pem", "one.pem", "integrators[0].tls.key: expected a private key in PEM"),
        ("one.pem", "locked.key", "integrators[0].tls.key: expected a private key in PEM, without a password"),
        (".", "one.key", "integrators[0].tls.cert: no such file"),
    ],
)
def test_tls_unusable_certificate_stops_the_start(cert: str, key: str, told: str) -> None:
    files = json.dumps({"cert": str(TLS / cert), "key": str(TLS / key)})
    assert refusal(acme=f"token: t,\n     tls: {files}}}\n").startswith(f"f.yml:5: {told}")


def test_tls_unreadable_certificate_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    secret, read = str(TLS / "one.key"), files.read_regular

    def closed(path: str, most: int, *, follow: bool) -> bytes:
        # A file mode wouldn't do: root reads everything.
        if path == secret:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return read(path, most, follow=follow)

    monkeypatch.setattr(tls, "read_regular", closed)
    named = json.dumps({"cert": str(TLS / "one.pem"), "key": secret})
    assert "integrators[0].tls.key: can't be read: Permission denied" in refusal(acme=f"token: t, tls: {named}}}\n")


def secure(node: Node, trusted: str) -> ssl.SSLSocket:
    host, _, port = node.api.rpartition(":")
    context = ssl.create_default_context(cafile=str(TLS / f"{trusted}.pem"))
    return context.wrap_socket(socket.create_connection((host, int(port)), 10), server_hostname="localhost")


def ask(sock: socket.socket) -> int:
    sock.sendall(f"GET {CALLS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    # Read it whole, or the next answer begins with the rest of this one.
    assert b'"calls"' in answer.read()
    return answer.status


def test_tls_reload_serves_the_renewed_certificate(sandbox: SandboxRig, redis: RedisServer, tmp_path: Path) -> None:
    files = {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}

    def renew(cert: str, key: str) -> None:
        Path(files["cert"]).write_bytes((TLS / f"{cert}.pem").read_bytes())
        Path(files["key"]).write_bytes((TLS / f"{key}.key").read_bytes())

    renew("one", "one")
    config = configuration(sandbox, redis, tls=files)
    port = config["admin"]["listen"].rpartition(":")[2]
    config["admin"]["listen"] = f"0.0.0.0:{port}"
    node = Node(config)
    try:
        with secure(node, "one") as old:
            assert ask(old) == 200
            renew("two", "one")
            reload(node, "config_reload_refused")
            with secure(node, "one") as still:
                assert ask(still) == 200
            renew("two", "two")
            reload(node)
            with secure(node, "two") as new:
                assert ask(new) == 200
            with pytest.raises(ssl.SSLCertVerificationError):
                secure(node, "one")
            # The connection that was already open isn't affected.
            assert ask(old) == 200
        del node.config["integrators"][0]["tls"]
        reload(node, "config_reload_refused")
        warned = {line["key"] for line in node.lines() if line["event"] == "config_warning"}
        assert "admin.listen" in warned
        assert "integrators[0].listen" not in warned
    finally:
        assert node.stop() == 0
