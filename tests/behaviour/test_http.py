"""The HTTP ports of a node, as friendly and as hostile clients see them."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from esl_apps.apps.legs import recording_path
from esl_apps.core.reference import new_ref
from esl_apps.core.terms import STATES
from esl_apps.store import keys
from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support.http_checks import (
    CALLEE,
    CALLS,
    NO_CALL,
    ORDER,
    RECORDINGS,
    check_answer,
    metric,
    refused,
    write_recording,
)
from tests.support.node import ADMIN_TOKEN, TOKEN, Answer, Node, RedisServer, configuration, request
from tests.support.ports import free_port
from tests.support.schemas import check_openapi

BETA_TOKEN = "beta-token-for-tests"
LEGACY_CLIENT = "127.0.0.2"


@pytest.fixture(scope="module")
def own_redis() -> Iterator[RedisServer]:
    """A Redis for this module alone: a test kills it."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def served(sandbox: SandboxRig, own_redis: RedisServer) -> Iterator[Node]:
    """A node with two integrators; the first lets one address use the deprecated form."""
    config = configuration(sandbox, own_redis, record=True, legacy_get={"allow": [f"{LEGACY_CLIENT}/32"]})
    beta = {"name": "beta", "listen": f"127.0.0.1:{free_port()}", "token": BETA_TOKEN, "caller_ids": ["27115550000"]}
    config["integrators"].append(beta)
    node = Node(config)
    yield node
    node.end()


@pytest.fixture
def node(served: Node, sandbox: SandboxRig, own_redis: RedisServer) -> Iterator[Node]:
    sandbox.phone("1000", Script(answer_after=None))
    yield served
    sandbox.reset()

    def over() -> bool:
        # A call that the test did not wait for may start to ring after a reset.
        sandbox.reset()
        return metric(served, "esl_apps_live_calls") == 0

    if own_redis.client.dbsize():
        # The node finishes writing about this test's calls before the next test begins.
        eventually(over)
        time.sleep(0.05)
        own_redis.flush()


@pytest.fixture
def beta(node: Node) -> str:
    return str(node.config["integrators"][1]["listen"])


def post(node: Node, body: object = ORDER, **headers: str) -> Answer:
    return request(node.api, "POST", CALLS, body, **headers)


def get(node: Node, path: str, **headers: str) -> Answer:
    return request(node.api, "GET", path, **headers)


def nothing_dialled(sandbox: SandboxRig) -> bool:
    time.sleep(0.05)
    return not sandbox.phone("1000").calls and sandbox.live_channels() == 0


def raw(address: str, data: bytes, timeout: float = 5.0) -> bytes:
    """Send bytes; return what the port answers until it closes or falls silent."""
    host, _, port = address.rpartition(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout) as sock, contextlib.suppress(OSError):
        sock.sendall(data)
        sock.settimeout(0.3)
        while chunk := sock.recv(65536):
            answer += chunk
    return answer


# Access --------------------------------------------------------------------------------------------------

PROTECTED = [
    ("POST", CALLS),
    ("GET", CALLS),
    ("GET", f"{CALLS}/{NO_CALL}"),
    ("DELETE", f"{CALLS}/{NO_CALL}"),
    ("GET", f"{RECORDINGS}/{NO_CALL}.wav"),
    ("POST", f"{CALLS}?dry_run=1"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"X_Auth_Token": "wrong"},
        {"X_Auth_Token": ""},
        {"Authorization": f"Bearer {BETA_TOKEN}"},
        {"Authorization": f"Bearer {ADMIN_TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer wrong", "X_Auth_Token": TOKEN},
    ],
    ids=str,
)
def test_token_missing_or_wrong_is_401(node: Node, method: str, path: str, headers: dict[str, str]) -> None:
    answer = request(node.api, method, path, ORDER if method == "POST" else None, token=None, **headers)
    assert refused(answer, 401) == [("", "unauthorized")]
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers", [{"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"bearer  {TOKEN} "}, {"X_Auth_Token": TOKEN}]
)
def test_token_in_either_header_opens(node: Node, headers: dict[str, str]) -> None:
    assert request(node.api, "GET", CALLS, token=None, **headers).status == 200


def test_token_in_the_address_is_401(node: Node) -> None:
    assert request(node.api, "GET", f"{CALLS}?token={TOKEN}&X-Auth-Token={TOKEN}", token=None).status == 401


# Requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b"{", b"agent=1000", b"\xff\xfe", b'{"agent": "\\ud800"}', b"NaN", b"[" * 60000, b"{}{}", b"\x00"]
)
def test_body_not_json_is_400(node: Node, sandbox: SandboxRig, body: bytes) -> None:
    assert refused(post(node, body), 400) == [("", "not_json")]
    assert nothing_dialled(sandbox)


@pytest.mark.parametrize("body", [[], "text", 5, None, True, [ORDER]])
def test_body_not_an_object_is_422(node: Node, body: object) -> None:
    assert refused(post(node, json.dumps(body).encode()), 422) == [("", "type")]


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", "application/xml"]
)
def test_body_of_another_media_type_is_415(node: Node, sandbox: SandboxRig, kind: str) -> None:
    assert refused(post(node, Content_Type=kind), 415) == [("", "media_type")]
    assert nothing_dialled(sandbox)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON"])
def test_body_of_a_json_media_type_is_accepted(node: Node, kind: str) -> None:
    assert post(node, Content_Type=kind).status == 202


def test_body_too_large_is_413(node: Node, sandbox: SandboxRig) -> None:
    body = json.dumps({**ORDER, "contact_ref": "a" * 70000}).encode()
    assert refused(post(node, body), 413) == [("", "too_large")]
    assert nothing_dialled(sandbox)


def test_body_declared_huge_is_413_at_once(node: Node) -> None:
    head = f"POST {CALLS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 99999999999\r\n\r\n"
    assert b" 413 " in raw(node.api, head.encode() + b"{}").partition(b"\r\n")[0]


def chunked(node: Node, *chunks: bytes) -> Answer:
    host, _, port = node.api.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    with contextlib.closing(connection):
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        connection.request("POST", CALLS, iter(chunks), headers, encode_chunked=True)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def test_body_in_chunks_is_accepted(node: Node) -> None:
    text = json.dumps(ORDER).encode()
    assert chunked(node, text[:10], text[10:]).status == 202


def test_body_in_chunks_too_large_is_413(node: Node, sandbox: SandboxRig) -> None:
    assert refused(chunked(node, *[b" " * 30000] * 4), 413) == [("", "too_large")]
    assert nothing_dialled(sandbox)


@pytest.mark.parametrize("rest", ["Content-Length: 90\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n5\r\n{"])
def test_body_cut_short_dials_nothing(node: Node, sandbox: SandboxRig, rest: str) -> None:
    head = f"POST {CALLS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    host, _, port = node.api.rpartition(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall((head + rest).encode())
        time.sleep(0.05)
    assert nothing_dialled(sandbox)
    assert "Traceback" not in node.log.read_text()


def test_order_with_wrong_fields_names_each(node: Node, sandbox: SandboxRig) -> None:
    body = {"agent": "1", "callee": 5, "contact_ref": "a b", "colour": "red"}
    assert sorted(refused(post(node, body), 422)) == [
        ("agent", "pattern"),
        ("callee", "type"),
        ("colour", "unknown"),
        ("contact_ref", "pattern"),
        ("outbound_id", "required"),
    ]
    assert nothing_dialled(sandbox)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("callee", "0900123456", "restricted"),
        ("callee", "112", "restricted"),
        ("agent", "0088161234567", "restricted"),
        ("outbound_id", "27115559999", "not_yours"),
        ("outbound_id", "tvc_none", "unknown_campaign"),
        ("callee", "0820001234\n\napi hupall", "pattern"),
        ("agent", "1000}user/1001", "pattern"),
    ],
)
def test_order_with_a_refused_field_dials_nothing(
    node: Node, sandbox: SandboxRig, field: str, value: str, code: str
) -> None:
    assert refused(post(node, {**ORDER, field: value}), 422) == [(field, code)]
    assert nothing_dialled(sandbox)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", CALLS),
        ("DELETE", CALLS),
        ("PATCH", f"{CALLS}/{NO_CALL}"),
        ("POST", f"{CALLS}/{NO_CALL}"),
        ("POST", f"{RECORDINGS}/x.wav"),
        ("POST", "/call.php"),
    ],
)
def test_method_not_allowed_is_405(node: Node, method: str, path: str) -> None:
    answer = request(node.api, method, path, {})
    assert refused(answer, 405) == [("", "method_not_allowed")]
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    "path", ["/", "/click2dial", "/nothing", f"{CALLS}/x/y", "/healthz", "/metrics", "/v2/accounts/acme/cccps"]
)
def test_path_unknown_is_404(node: Node, path: str) -> None:
    assert refused(get(node, path), 404) == [("", "not_found")]


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET " + b"/" * 70000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA" * 3 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
def test_connection_not_http_ends_alone(node: Node, data: bytes) -> None:
    answer = raw(node.api, data)
    assert not answer or re.match(rb"HTTP/1\.1 4\d\d ", answer), answer
    assert b"gevent" not in answer
    assert b"Traceback" not in answer
    assert get(node, CALLS).status == 200


def test_answers_reveal_no_versions(node: Node) -> None:
    for answer in (get(node, CALLS), get(node, "/nothing"), post(node, b"{")):
        shown = str(answer.headers).lower() + answer.body.decode().lower()
        assert not re.search(r"gevent|falcon|python|traceback|esl_apps/", shown), shown


# One call ------------------------------------------------------------------------------------------------


def test_order_accepted_is_202_with_its_location(node: Node, sandbox: SandboxRig) -> None:
    answer = post(node, {**ORDER, "contact_ref": "lead-7"})
    assert answer.status == 202
    ref = answer.json["call_ref"]
    assert answer.headers["location"] == f"{CALLS}/{ref}"
    assert answer.json.keys() == {"call_ref", "contact_ref", "state"}
    assert answer.json["contact_ref"] == "lead-7"
    assert answer.json["state"] in ("queued", "agent_ringing")
    eventually(lambda: get(node, answer.headers["location"]).json["state"] == "agent_ringing")
    call = node.get(ref)
    assert (call["agent"], call["callee"], call["outbound_id"]) == ("1000", CALLEE, "27115550000")
    assert [moment["state"] for moment in call["timeline"]] == ["queued", "agent_ringing"]


def test_order_before_v3_is_accepted(node: Node) -> None:
    answer = post(node, {**ORDER, "call_ref": "lead-7"})
    assert answer.json["contact_ref"] == "lead-7"
    assert answer.json["call_ref"] != "lead-7"


@pytest.mark.parametrize(
    "ref", ["x", "..", "%2e%2e", "*", "%00", "%ff", NO_CALL, NO_CALL.upper(), f"{NO_CALL}%0A", "a" * 5000]
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_call_unknown_is_404(node: Node, method: str, ref: str) -> None:
    assert refused(request(node.api, method, f"{CALLS}/{ref}"), 404) == [("", "not_found")]


def test_call_of_another_integrator_is_404(node: Node, beta: str, sandbox: SandboxRig) -> None:
    ref = node.call("1000", CALLEE)
    eventually(lambda: node.get(ref)["state"] == "agent_ringing")
    theirs = request(beta, "GET", f"{CALLS}/{ref}", token=BETA_TOKEN)
    unknown = request(beta, "GET", f"{CALLS}/{new_ref()}", token=BETA_TOKEN)
    assert refused(theirs, 404) == [("", "not_found")]
    assert theirs.body == unknown.body
    assert refused(request(beta, "DELETE", f"{CALLS}/{ref}", token=BETA_TOKEN), 404) == [("", "not_found")]
    assert request(beta, "GET", CALLS, token=BETA_TOKEN).json["calls"] == []
    time.sleep(0.1)
    assert node.get(ref)["state"] == "agent_ringing"
    node.delete(ref)
    eventually(lambda: node.get(ref)["state"] == "ended")
    assert request(beta, "GET", f"{CALLS}/{ref}", token=BETA_TOKEN).status == 404


def test_delete_cancels_then_shows_the_record(node: Node, own_redis: RedisServer, sandbox: SandboxRig) -> None:
    ref = node.call("1000", CALLEE)
    first = node.delete(ref)
    assert first.status == 202
    assert first.json["call_ref"] == ref
    eventually(lambda: node.get(ref)["state"] == "ended")
    again = node.delete(ref)
    assert again.status == 200
    assert again.json["record"]["end_reason"] == "cancelled"
    assert own_redis.pop()["call_ref"] == ref
    assert own_redis.client.llen("enigma:notifications:cdr") == 0
    eventually(lambda: sandbox.live_channels() == 0)


def test_many_deletes_at_once_make_one_record(node: Node, own_redis: RedisServer, sandbox: SandboxRig) -> None:
    ref = node.call("1000", CALLEE)
    with ThreadPoolExecutor(20) as pool:
        statuses = {answer.status for answer in pool.map(lambda _: node.delete(ref), range(20))}
    assert statuses <= {200, 202}
    assert own_redis.pop()["call_ref"] == ref
    time.sleep(0.1)
    assert own_redis.client.llen("enigma:notifications:cdr") == 0


# Dry run -------------------------------------------------------------------------------------------------


def test_dry_run_lists_every_check_and_dials_nothing(node: Node, sandbox: SandboxRig) -> None:
    answer = request(node.api, "POST", f"{CALLS}?dry_run=1", ORDER)
    assert answer.status == 200
    assert answer.json["ok"]
    assert {check["check"] for check in answer.json["checks"]} >= {"agent", "callee", "outbound_id", "contact_ref"}
    assert all(check["ok"] for check in answer.json["checks"])
    assert nothing_dialled(sandbox)
    assert get(node, CALLS).json["calls"] == []


def test_dry_run_of_a_wrong_order_names_the_failed_check(node: Node) -> None:
    answer = request(node.api, "POST", f"{CALLS}?dry_run=true", {**ORDER, "callee": "112", "colour": "red"})
    assert answer.status == 200
    assert not answer.json["ok"]
    assert {check["check"] for check in answer.json["checks"] if not check["ok"]} == {"callee", "colour"}


def test_dry_run_not_json_is_400(node: Node) -> None:
    refused(request(node.api, "POST", f"{CALLS}?dry_run=1", b"{"), 400)
    refused(request(node.api, "POST", f"{CALLS}?dry_run=1", b"[]"), 422)


def test_dry_run_neither_0_nor_1_dials_nothing(node: Node, sandbox: SandboxRig) -> None:
    assert refused(request(node.api, "POST", f"{CALLS}?dry_run=perhaps", ORDER), 422) == [("dry_run", "value")]
    assert nothing_dialled(sandbox)


def test_dry_run_0_dials(node: Node) -> None:
    assert request(node.api, "POST", f"{CALLS}?dry_run=0", ORDER).status == 202


# Idempotency ---------------------------------------------------------------------------------------------


def test_idempotency_key_again_is_the_same_call(node: Node, sandbox: SandboxRig) -> None:
    first, again = (post(node, Idempotency_Key="k-1") for _ in range(2))
    assert (first.status, again.status) == (202, 202)
    assert first.json["call_ref"] == again.json["call_ref"]
    assert again.headers["location"] == first.headers["location"]
    assert len(sandbox.phone("1000", Script(answer_after=None)).calls) <= 1
    assert sandbox.live_channels() == 1


def test_idempotency_key_after_the_end_is_the_same_call(node: Node, sandbox: SandboxRig) -> None:
    first = post(node, Idempotency_Key="k-1")
    node.delete(first.json["call_ref"])
    eventually(lambda: node.get(first.json["call_ref"])["state"] == "ended")
    again = post(node, Idempotency_Key="k-1")
    assert again.status == 202
    assert (again.json["call_ref"], again.json["state"]) == (first.json["call_ref"], "ended")
    assert sandbox.live_channels() == 0


def test_idempotency_key_with_another_body_is_409(node: Node) -> None:
    post(node, Idempotency_Key="k-1")
    answer = post(node, {**ORDER, "callee": "0820009999"}, Idempotency_Key="k-1")
    assert refused(answer, 409) == [("Idempotency-Key", "key_reused")]


def test_idempotency_key_with_a_wrong_other_body_is_409(node: Node) -> None:
    post(node, Idempotency_Key="k-1")
    assert refused(post(node, {**ORDER, "callee": "x"}, Idempotency_Key="k-1"), 409)


def test_idempotency_key_of_a_refused_order_is_free(node: Node) -> None:
    assert refused(post(node, {**ORDER, "callee": "x"}, Idempotency_Key="k-1"), 422) == [("callee", "pattern")]
    assert post(node, Idempotency_Key="k-1").status == 202


def test_idempotency_key_is_the_integrators_own(node: Node, beta: str, sandbox: SandboxRig) -> None:
    sandbox.phone("1001", Script(answer_after=None))
    mine = post(node, Idempotency_Key="k-1")
    theirs = request(beta, "POST", CALLS, {**ORDER, "agent": "1001"}, token=BETA_TOKEN, Idempotency_Key="k-1")
    assert theirs.status == 202
    assert theirs.json["call_ref"] != mine.json["call_ref"]


@pytest.mark.parametrize("key", ["", " ", "a b", "a" * 201, "é"])
def test_idempotency_key_malformed_is_refused(node: Node, sandbox: SandboxRig, key: str) -> None:
    answer = request(node.api, "POST", CALLS, ORDER, Idempotency_Key=key)
    assert refused(answer, 422) == [("Idempotency-Key", "pattern")]
    assert nothing_dialled(sandbox)


def test_idempotency_key_holds_for_a_day(node: Node, own_redis: RedisServer) -> None:
    post(node, Idempotency_Key="k-1")
    (name,) = own_redis.client.scan_iter("*idempotency*")
    assert 86400 - 60 <= own_redis.client.ttl(name) <= 86400
    assert "k-1" not in name


def test_idempotency_key_fifty_at_once_dial_once(node: Node, sandbox: SandboxRig) -> None:
    ready = threading.Barrier(50)

    def ask(_number: int) -> Answer:
        ready.wait(10)
        return post(node, Idempotency_Key="k-50")

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    assert {answer.status for answer in answers} <= {202, 409}
    placed = {answer.json["call_ref"] for answer in answers if answer.status == 202}
    assert len(placed) == 1
    assert all(
        refused(answer, 409) == [("Idempotency-Key", "in_progress")] for answer in answers if answer.status == 409
    )
    assert len(get(node, CALLS).json["calls"]) == 1
    eventually(lambda: sandbox.live_channels() == 1)
    assert post(node, Idempotency_Key="k-50").json["call_ref"] in placed


# The list ------------------------------------------------------------------------------------------------


@pytest.fixture
def five(node: Node, sandbox: SandboxRig) -> list[str]:
    """Five calls, oldest first; the first two ended."""
    refs = []
    for number in range(5):
        sandbox.phone(str(1000 + number), Script(answer_after=None))
        refs.append(node.call(str(1000 + number), CALLEE, contact_ref=f"lead-{number % 2}"))
        time.sleep(0.002)
    for ref in refs[:2]:
        node.delete(ref)
        eventually(lambda ref=ref: node.get(ref)["state"] == "ended")  # type: ignore[misc]
    for ref in refs[2:]:
        eventually(lambda ref=ref: node.get(ref)["state"] == "agent_ringing")  # type: ignore[misc]
    return refs


def listed(node: Node, query: str = "") -> list[str]:
    answer = get(node, f"{CALLS}?{query}")
    assert answer.status == 200, answer.body
    return [call["call_ref"] for call in answer.json["calls"]]


def test_list_is_newest_first_and_filtered(node: Node, five: list[str]) -> None:
    newest_first = five[::-1]
    assert listed(node) == newest_first
    assert listed(node, "state=ended") == [five[1], five[0]]
    assert listed(node, "state=agent_ringing") == newest_first[:3]
    assert listed(node, "agent=1003") == [five[3]]
    assert listed(node, "contact_ref=lead-1") == [five[3], five[1]]
    assert listed(node, "contact_ref=lead-1&state=ended") == [five[1]]
    assert listed(node, "agent=9999") == []


def test_list_has_a_new_call_at_once(node: Node) -> None:
    for _ in range(10):
        ref = node.call("1000", CALLEE)
        assert listed(node)[0] == ref


@pytest.mark.parametrize("query", ["", "state=agent_ringing", "contact_ref=lead-1"])
def test_list_pages_hold_each_call_once(node: Node, five: list[str], query: str) -> None:
    whole, found, before = listed(node, query), [], ""
    for _ in range(10):
        page = get(node, f"{CALLS}?{query}&limit=2{before}").json
        found += [call["call_ref"] for call in page["calls"]]
        assert len(page["calls"]) <= 2
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert found == whole


def test_list_new_calls_do_not_shift_a_page(node: Node, five: list[str]) -> None:
    first = get(node, f"{CALLS}?limit=2").json
    node.call("1000", CALLEE)
    second = get(node, f"{CALLS}?limit=10&before={first['next']}").json
    assert [call["call_ref"] for call in first["calls"] + second["calls"]] == five[::-1]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("state=rings", "state"),
        ("state=", "state"),
        ("before=x", "before"),
        ("before=%2B", "before"),
    ],
)
def test_list_with_a_wrong_query_is_422(node: Node, query: str, field: str) -> None:
    assert refused(get(node, f"{CALLS}?{query}"), 422) == [(field, "value")]


# The deprecated form -------------------------------------------------------------------------------------

LEGACY = f"/call.php?agent=1000&callee={CALLEE}&outbound_id=27115550000&call_ref=lead-7"


def legacy(address: str, path: str, source: str, token: str | None = None) -> Answer:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10, source_address=(source, 0))
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def test_legacy_get_from_an_allowed_address_places_a_call(node: Node) -> None:
    answer = legacy(node.api, LEGACY, LEGACY_CLIENT)
    assert answer.status == 202, answer.body
    assert answer.json["contact_ref"] == "lead-7"


def test_legacy_get_from_another_address_needs_the_token(node: Node, sandbox: SandboxRig) -> None:
    refused(legacy(node.api, LEGACY, "127.0.0.3"), 401)
    assert nothing_dialled(sandbox)
    assert legacy(node.api, LEGACY, "127.0.0.3", TOKEN).status == 202


def test_legacy_get_ignores_a_claimed_address(node: Node, sandbox: SandboxRig) -> None:
    for name in ("X_Forwarded_For", "Forwarded", "X_Real_IP"):
        refused(request(node.api, "GET", LEGACY, token=None, **{name: LEGACY_CLIENT}), 401)
    assert nothing_dialled(sandbox)


def test_legacy_get_is_off_by_default(beta: str, sandbox: SandboxRig) -> None:
    for token in (None, BETA_TOKEN):
        assert refused(legacy(beta, LEGACY, LEGACY_CLIENT, token), 404) == [("", "not_found")]
    assert nothing_dialled(sandbox)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (LEGACY.replace(CALLEE, "112"), "callee"),
        (LEGACY.replace("agent=1000", "agent="), "agent"),
        (LEGACY + "&agent=1001", "agent"),
        (LEGACY + "&colour=red", "colour"),
        (LEGACY.replace("lead-7", "a%0Ab"), "call_ref"),
    ],
)
def test_legacy_get_checks_fields_alike(node: Node, sandbox: SandboxRig, path: str, field: str) -> None:
    assert [one for one, _code in refused(legacy(node.api, path, LEGACY_CLIENT), 422)] == [field]
    assert nothing_dialled(sandbox)


# Recordings ----------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(sandbox: SandboxRig, node: Node) -> tuple[str, bytes]:
    return write_recording(sandbox, "acme")


def test_recording_is_served_whole(node: Node, recorded: tuple[str, bytes]) -> None:
    name, whole = recorded
    answer = get(node, f"{RECORDINGS}/{name}")
    assert (answer.status, answer.body) == (200, whole)
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["accept-ranges"] == "bytes"
    assert int(answer.headers["content-length"]) == len(whole)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-43", 0, 43),
        ("bytes=100-", 100, None),
        ("bytes=-5", -5, None),
        ("bytes=3000-999999", 3000, None),
        ("bytes=-999999", 0, None),
        ("bytes=0-", 0, None),
    ],
)
def test_recording_range_is_served(
    node: Node, recorded: tuple[str, bytes], text: str, first: int, last: int | None
) -> None:
    name, whole = recorded
    size = len(whole)
    answer = get(node, f"{RECORDINGS}/{name}", Range=text)
    start = first if first >= 0 else size + first
    stop = size - 1 if last is None else last
    assert answer.body == whole[start : stop + 1]
    assert answer.status == 206
    assert answer.headers["content-range"] == f"bytes {start}-{stop}/{size}"


@pytest.mark.parametrize("text", ["bytes=999999-", "bytes=999999-9999999", "bytes=-0"])
def test_recording_range_beyond_the_end_is_416(node: Node, recorded: tuple[str, bytes], text: str) -> None:
    name, whole = recorded
    answer = get(node, f"{RECORDINGS}/{name}", Range=text)
    assert refused(answer, 416) == [("", "range")]
    assert answer.headers["content-range"] == f"bytes */{len(whole)}"


@pytest.mark.parametrize(
    "text", ["bytes=0-1,5-6", "bytes=x-y", "bytes=5-2", "lines=1-2", "bytes", "bytes=", "=", "bytes=--1"]
)
def test_recording_range_malformed_is_ignored(node: Node, recorded: tuple[str, bytes], text: str) -> None:
    name, whole = recorded
    answer = get(node, f"{RECORDINGS}/{name}", Range=text)
    assert (answer.status, answer.body) == (200, whole)


def test_recording_empty_is_served(node: Node, recorded: tuple[str, bytes], sandbox: SandboxRig) -> None:
    name = recorded[0]
    Path(recording_path(str(sandbox.recordings), "acme", name)).write_bytes(b"")
    answer = get(node, f"{RECORDINGS}/{name}")
    assert (answer.status, answer.body) == (200, b"")
    refused(get(node, f"{RECORDINGS}/{name}", Range="bytes=0-"), 416)


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "%2e%2e",
        "..%2f..%2fesl_apps.yml",
        "%2fetc%2fpasswd",
        "....//....//etc/passwd",
        "x.wav",
        "%00.wav",
        f"{NO_CALL}.wav",
        f"{NO_CALL}.wav%00.txt",
        f"{NO_CALL}.WAV",
        f"{NO_CALL}",
        f"..%2fbeta%2f{NO_CALL}.wav",
        f"{NO_CALL}.wav%0A",
        "a" * 5000,
    ],
)
def test_recording_unknown_is_404(node: Node, name: str) -> None:
    refused(get(node, f"{RECORDINGS}/{name}"), 404)


def test_recording_of_another_integrator_is_404(
    node: Node, beta: str, sandbox: SandboxRig, recorded: tuple[str, bytes]
) -> None:
    theirs, _whole = write_recording(sandbox, "beta")
    refused(get(node, f"{RECORDINGS}/{theirs}"), 404)
    refused(request(beta, "GET", f"{RECORDINGS}/{recorded[0]}", token=BETA_TOKEN), 404)
    assert request(beta, "GET", f"{RECORDINGS}/{theirs}", token=BETA_TOKEN).status == 200


def test_recording_folder_or_link_out_is_404(node: Node, sandbox: SandboxRig) -> None:
    folder, link = f"{new_ref()}.wav", f"{new_ref()}.wav"
    Path(recording_path(str(sandbox.recordings), "acme", folder)).mkdir(parents=True)
    Path(recording_path(str(sandbox.recordings), "acme", link)).symlink_to("/etc/passwd")
    refused(get(node, f"{RECORDINGS}/{folder}"), 404)
    refused(get(node, f"{RECORDINGS}/{link}"), 404)


def test_recording_client_leaves_midway_closes_the_file(node: Node, sandbox: SandboxRig) -> None:
    name, _whole = write_recording(sandbox, "acme", frames=2_000_000)
    assert node.process is not None
    fds = Path(f"/proc/{node.process.pid}/fd")
    before = len(list(fds.iterdir()))
    host, _, port = node.api.rpartition(":")
    for _ in range(10):
        with socket.create_connection((host, int(port))) as sock:
            head = f"GET {RECORDINGS}/{name} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            sock.sendall(head.encode())
            sock.recv(1000)
    eventually(lambda: len(list(fds.iterdir())) <= before + 1)


# The operator's port, and the description ----------------------------------------------------------------


def test_healthz_and_readyz_are_200(node: Node) -> None:
    assert request(node.admin, "GET", "/healthz", token=None).json == {"status": "ok"}
    assert request(node.admin, "GET", "/readyz", token=None).json == {"status": "ok", "reasons": []}


def test_metrics_count_calls_by_application_and_outcome(node: Node) -> None:
    name = 'esl_apps_calls_total{app="click-dial",end_reason="cancelled"}'
    before = metric(node, name)
    ref = node.call("1000", CALLEE)
    eventually(lambda: metric(node, 'esl_apps_live_calls{app="click-dial"}') == 1)
    node.delete(ref)
    eventually(lambda: metric(node, name) == before + 1)
    assert metric(node, 'esl_apps_live_calls{app="click-dial"}') == 0
    for wanted in (
        "esl_apps_time_to_ring_seconds_count",
        "esl_apps_esl_round_trip_seconds_count",
        "esl_apps_outbox_depth",
        "esl_apps_switch_reconnects_total",
        "esl_apps_switch_up",
        "esl_apps_greenlets",
        "process_open_fds",
        "process_resident_memory_bytes",
    ):
        assert wanted in request(node.admin, "GET", "/metrics", token=None).body.decode()
    assert metric(node, "esl_apps_switch_up") == 1


@pytest.mark.parametrize("path", ["/nothing", CALLS, "/call.php", "/"])
def test_admin_path_unknown_is_404(node: Node, path: str) -> None:
    assert refused(request(node.admin, "GET", path, token=ADMIN_TOKEN), 404) == [("", "not_found")]


def test_each_port_describes_its_own_routes(node: Node) -> None:
    for address, paths in (
        (node.api, {CALLS, f"{CALLS}/{{ref}}", f"{RECORDINGS}/{{name}}", f"{RECORDINGS}/{{name}}/link", "/call.php"}),
        (node.admin, {"/healthz", "/readyz", "/metrics", "/v2/accounts/{account_id}/cccps"}),
    ):
        document = request(address, "GET", "/openapi.json", token=None).json
        check_openapi(document)
        described = document["paths"].keys()
        assert described >= paths
        for path in described:
            # An unknown path is a 404 without a token; a known one with parameters is found.
            known = re.sub(r"\{\w+\}", NO_CALL, path)
            answer = request(address, "PROPFIND", known, token=None)
            assert answer.status in (400, 405), (path, answer.status)


def test_answers_match_the_openapi_document(node: Node, sandbox: SandboxRig) -> None:
    document = get(node, "/openapi.json").json
    accepted = post(node, {**ORDER, "contact_ref": "lead-7"}, Idempotency_Key="k")
    ref = accepted.json["call_ref"]
    one = f"{CALLS}/{{ref}}"
    check_answer(document, CALLS, "post", accepted)
    check_answer(document, CALLS, "post", request(node.api, "POST", f"{CALLS}?dry_run=1", ORDER))
    check_answer(document, CALLS, "post", post(node, b"{"))
    check_answer(document, CALLS, "post", post(node, {}))
    check_answer(document, CALLS, "post", post(node, Content_Type="text/plain"))
    check_answer(document, CALLS, "post", post(node, b" " * 70000))
    check_answer(document, CALLS, "post", post(node, {**ORDER, "callee": "0820009999"}, Idempotency_Key="k"))
    check_answer(document, CALLS, "get", get(node, CALLS))
    check_answer(document, CALLS, "get", get(node, f"{CALLS}?limit=x"))
    check_answer(document, CALLS, "get", request(node.api, "GET", CALLS, token=None))
    check_answer(document, one, "get", get(node, f"{CALLS}/{ref}"))
    check_answer(document, one, "get", get(node, f"{CALLS}/x"))
    check_answer(document, one, "delete", node.delete(ref))
    eventually(lambda: node.get(ref)["state"] == "ended")
    check_answer(document, one, "delete", node.delete(ref))
    check_answer(document, one, "get", get(node, f"{CALLS}/{ref}"))
    check_answer(document, f"{RECORDINGS}/{{name}}", "get", get(node, f"{RECORDINGS}/x"))


def test_openapi_document_knows_every_state(node: Node) -> None:
    document = get(node, "/openapi.json").json
    assert document["components"]["schemas"]["Call"]["properties"]["state"]["enum"] == list(STATES)


# Slow and many -------------------------------------------------------------------------------------------


def test_slow_clients_delay_no_other(node: Node) -> None:
    host, _, port = node.api.rpartition(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(100)]
    for sock in slow:
        sock.sendall(f"POST {CALLS} HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{{".encode())
    began = time.monotonic()
    assert post(node).status == 202
    assert time.monotonic() - began < 5  # they have ten seconds
    for sock in slow:
        sock.close()


def test_orders_at_once_are_calls_of_their_own(node: Node, sandbox: SandboxRig) -> None:
    for number in range(20):
        sandbox.phone(str(1100 + number), Script(answer_after=None))
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: node.post(str(1100 + number), CALLEE), range(20)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["call_ref"] for answer in answers}) == 20
    eventually(lambda: sandbox.live_channels() == 20)


# Nothing to dial with ------------------------------------------------------------------------------------


def unavailable(node: Node) -> None:
    answer = post(node)
    assert refused(answer, 503) == [("", "unavailable")]
    assert int(answer.headers["retry-after"]) > 0


def test_redis_down_is_503(node: Node, own_redis: RedisServer, sandbox: SandboxRig) -> None:
    ref = node.call("1000", CALLEE)
    own_redis.kill()
    try:
        eventually(lambda: request(node.admin, "GET", "/readyz").status == 503)
        unavailable(node)
        answer = post(node, Idempotency_Key="k")
        assert refused(answer, 503) == [("", "unavailable")]
        for path in (CALLS, f"{CALLS}/{new_ref()}"):
            listed_answer = get(node, path)
            assert refused(listed_answer, 503) == [("", "unavailable")]
            assert int(listed_answer.headers["retry-after"]) > 0
        assert request(node.admin, "GET", "/healthz").status == 200
        ready = request(node.admin, "GET", "/readyz")
        assert ready.status == 503
        assert ready.json["reasons"] == ["redis: no answer"]
        # The node still shows and ends the calls that it knows by itself.
        assert node.get(ref)["call_ref"] == ref
        assert node.delete(ref).status == 202
        eventually(lambda: sandbox.live_channels() == 0)
        dry = request(node.api, "POST", f"{CALLS}?dry_run=1", ORDER)
        assert dry.status == 200
        assert [check["check"] for check in dry.json["checks"] if not check["ok"]] == ["ready"]
    finally:
        own_redis.start()
    eventually(lambda: request(node.admin, "GET", "/readyz").status == 200)
    assert own_redis.pop()["call_ref"] == ref
    assert post(node).status == 202


def test_redis_silent_is_503(node: Node, own_redis: RedisServer) -> None:
    assert own_redis.process is not None
    own_redis.process.send_signal(19)
    try:
        eventually(lambda: request(node.admin, "GET", "/readyz").status == 503)
        began = time.monotonic()
        unavailable(node)
        assert time.monotonic() - began < 10
    finally:
        own_redis.process.send_signal(18)
    eventually(lambda: request(node.admin, "GET", "/readyz").status == 200)


def test_switch_down_is_503(node: Node, sandbox: SandboxRig) -> None:
    sandbox.kill()
    try:
        eventually(lambda: request(node.admin, "GET", "/readyz").status == 503)
        unavailable(node)
        assert request(node.admin, "GET", "/readyz").json["reasons"][0].startswith("switch fs1: ")
        assert get(node, CALLS).status == 200
    finally:
        sandbox.start()
    eventually(lambda: request(node.admin, "GET", "/readyz").status == 200)
    assert post(node).status == 202


def test_order_refused_leaves_nothing_in_redis(node: Node, own_redis: RedisServer) -> None:
    def found(pattern: str) -> set[str]:
        return set(own_redis.client.scan_iter(pattern))

    # An earlier test's call may still be written: the node writes in the background.
    eventually(lambda: metric(node, "esl_apps_live_calls") == 0, within=10)
    mark = node.call("1000", CALLEE)
    node.delete(mark)
    # Look in Redis, not in the node: once this call is there, so is all that was written before it.
    eventually(lambda: '"state":"ended"' in (own_redis.client.get(keys.call(mark)) or ""))
    before = found("*call*")
    post(node, {})
    post(node, {**ORDER, "callee": "x"}, Idempotency_Key="k")
    last = node.call("1000", CALLEE)
    eventually(lambda: keys.call(last) in found("*call*"))
    assert found("*idempotency*") == set()
    # Later writes have arrived; the refused requests left nothing.
    assert {key for key in found("*call*") - before if last not in key} == set()
