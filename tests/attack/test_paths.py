"""Path traversal: a client's name opens one of its own recordings or nothing, a prompt or nothing."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from esl_apps.apps.legs import recording_path
from esl_apps.core.reference import new_ref
from tests.rig.base import Script
from tests.rig.sandbox import SandboxRig
from tests.support.node import ADMIN_TOKEN, TOKEN, Node, RedisServer, configuration, request
from tests.support.ports import free_port

SECRET = b"RIFF what nobody may read"
OTHERS_TOKEN = "beta-token-for-tests"
RECORDINGS = "/click2dial/recordings/"


@pytest.fixture(scope="module")
def stand(redis: RedisServer) -> Iterator[tuple[SandboxRig, Node]]:
    rig = SandboxRig()
    config = configuration(rig, redis)
    beta = {"name": "beta", "listen": f"127.0.0.1:{free_port()}", "token": OTHERS_TOKEN}
    config["integrators"].append(beta)
    config["accounts"] = {"acme": {"caller_id": {"number": "+27115550000"}}}
    config["prompts"] = {"urls": ["https://prompts.example/a.wav"]}
    rig.phone("1000", Script(answer_after=0.1))
    node = Node(config)
    yield rig, node
    node.end()
    rig.close()


@pytest.fixture
def folder(stand: tuple[SandboxRig, Node]) -> Path:
    return Path(stand[0].recordings)


def recorded(folder: Path, integrator: str = "acme", data: bytes = SECRET) -> str:
    """A recording's name."""
    name = f"{new_ref()}.wav"
    path = Path(recording_path(str(folder), integrator, name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return name


def raw_get(address: str, path: bytes, token: str = TOKEN) -> tuple[int, bytes]:
    """Request a path unchanged: ``http.client`` would refuse to send some of these."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    with closing(connection):
        connection.connect()
        head = b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + token.encode()
        connection.sock.sendall(head + b"\r\n\r\n")
        response = http.client.HTTPResponse(connection.sock)
        response.begin()
        return response.status, response.read()


def spellings(path: str) -> Iterator[bytes]:
    """One path up and down, in all spellings that have fooled servers."""
    for up in (
        "../",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "%252e%252e%252f",
        "..%252f",
        "..%c0%af",
        "%c0%ae%c0%ae/",
        "..%5c",
        "..\\",
        "....//",
        "..;/",
        "..%00/",
        "..%ef%bc%8f",
        "%uff0e%uff0e/",
        "./.././",
        "/",
    ):
        for depth in (1, 3, 6):
            yield (RECORDINGS + up * depth + path).encode()
            yield (RECORDINGS + up * depth + path.replace("/", "%2f")).encode()


def test_recording_name_opens_its_file(stand: tuple[SandboxRig, Node], folder: Path) -> None:
    name = recorded(folder)
    assert raw_get(stand[1].api, (RECORDINGS + name).encode()) == (200, SECRET)


def test_recording_name_no_spelling_leaves_the_folder(stand: tuple[SandboxRig, Node], folder: Path) -> None:
    outside = folder.parent / "outside.wav"
    outside.write_bytes(SECRET)
    name = recorded(folder, "beta")
    theirs = Path(recording_path(str(folder), "beta", name))
    wanted = ["outside.wav", "etc/passwd", f"beta/{theirs.parent.name}/{name}", str(outside).lstrip("/")]
    tried = 0
    for path in wanted:
        for spelling in spellings(path):
            status, body = raw_get(stand[1].api, spelling)
            assert status in (400, 404), spelling
            assert SECRET not in body
            assert b"root:" not in body
            tried += 1
    assert tried > 300


def test_recording_name_of_another_integrator_opens_nothing(stand: tuple[SandboxRig, Node], folder: Path) -> None:
    name = recorded(folder, "beta")
    beta = stand[1].config["integrators"][1]["listen"]
    assert raw_get(beta, (RECORDINGS + name).encode(), OTHERS_TOKEN) == (200, SECRET)
    assert raw_get(stand[1].api, (RECORDINGS + name).encode())[0] == 404


@pytest.mark.parametrize(
    "name",
    [
        "{}%00",
        "{}%00.wav",
        "%00{}",
        "{}/",
        "{}/.",
        "./{}",
        "{}.bak",
        "{}%0a",
        "{}%20",
        "{}?x=/etc/passwd",
        "{}#",
        "{}::$DATA",
        "/{}",
        "{}%2e",
        "%7b{}%7d",
        "*",
        "?",
        "{}\u00a0",
    ],
)
def test_recording_name_with_extra_text_opens_nothing(stand: tuple[SandboxRig, Node], folder: Path, name: str) -> None:
    path = (RECORDINGS + name.format(recorded(folder))).encode()
    status, body = raw_get(stand[1].api, path)
    if name in ("{}/", "{}#"):
        # The same resource: with a slash at the end, or a fragment.
        assert (status, body) in ((200, SECRET), (404, body), (400, body))
    else:
        assert status in (400, 404, 422)
        assert SECRET not in body


def test_recording_link_or_folder_is_not_followed(stand: tuple[SandboxRig, Node], folder: Path) -> None:
    """A link, a folder, a pipe: creating one in the folder opens nothing."""
    target = folder.parent / "target.wav"
    target.write_bytes(SECRET)
    for make in (
        lambda path: path.symlink_to(target),
        lambda path: path.symlink_to("/etc/passwd"),
        lambda path: path.mkdir(),
        os.mkfifo,
        lambda path: path.symlink_to(path.name),
    ):
        name = recorded(folder)
        path = Path(recording_path(str(folder), "acme", name))
        path.unlink()
        make(path)
        started = time.monotonic()
        status, body = raw_get(stand[1].api, (RECORDINGS + name).encode())
        assert status == 404, (path, body)
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "media_id",
    [
        "../enter_pin",
        "enter_pin.wav",
        "/etc/passwd",
        "..%2fenter_pin",
        "%2e%2e%2fenter_pin",
        "enter_pin\0",
        "enter_pin\n",
        "\u2024\u2024/enter_pin",
        "\uff0e\uff0e\uff0fenter_pin",
        "en/8000/enter_pin",
        ".",
        "..",
        "",
        " ",
        "enter_pin ",
        "a" * 5000,
        "file:///etc/passwd",
        "http://127.0.0.1:1/a.wav",
        "https://prompts.example/a.wav?x",
        "https://prompts.example/../a.wav",
        "tone_stream://%(1000,0,350)",
        "say:enter_pin",
        "shout://x",
        "${system(id)}",
        "local_stream://moh",
        "enter_pin,x",
        "enter_pin!x",
        "@before=a",
        ["announcement"],
        {"a": "b"},
        5,
        True,
    ],
)
def test_media_id_is_a_prompt_or_a_listed_url(stand: tuple[SandboxRig, Node], media_id: Any) -> None:
    rig, node = stand
    body = {"data": {"a_leg_number": "1000", "b_leg_number": "1001", "media_id": media_id, "callback_delay": 0}}
    answer = request(node.admin, "PUT", "/v2/accounts/acme/cccps/autodial", body, token=ADMIN_TOKEN)
    assert answer.status == 400, answer.body
    assert list(answer.json["data"]) == ["media_id"]
    assert not rig.phone("1000", Script(answer_after=0.1)).calls
    assert rig.live_channels() == 0
