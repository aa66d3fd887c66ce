"""Recordings over HTTP: ranges, signed links, and no access to other files."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from esl_apps.apps.legs import recording_path
from esl_apps.config.model import Rate
from esl_apps.core.reference import new_ref
from esl_apps.http import recordings
from esl_apps.http.signed_links import Links
from esl_apps.process.folder import THREADS, Folder, Hangs
from tests.support.http_services import LINK_KEY, World, errors
from tests.support.hung_disk import hung_disk
from tests.support.peer import eventually

RECORDINGS = "/click2dial/recordings"
NO_RECORDING = "01900000-0000-7000-8000-000000000000.wav"
WHOLE = bytes(range(256)) * 300
STRANGER = {"Authorization": ""}


def write(world: World, integrator: str = "acme", data: bytes = WHOLE) -> str:
    """Write a recording and return its name."""
    name = f"{new_ref()}.wav"
    path = path_of(world, name, integrator)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return name


def path_of(world: World, name: str, integrator: str = "acme") -> Path:
    return Path(recording_path(world.services.policy.config.recordings.dir, integrator, name))


def get(world: World, name: str, **options: Any) -> Any:
    return world.api.simulate_get(f"{RECORDINGS}/{name}", **options)


def test_get_recording_streams_it(world: World) -> None:
    result = get(world, write(world))
    assert (result.status_code, result.content) == (200, WHOLE)
    assert result.headers["content-type"] == "audio/wav"
    assert result.headers["accept-ranges"] == "bytes"
    assert result.headers["content-length"] == str(len(WHOLE))


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=100-", 100, 76799),
        ("bytes=-5", 76795, 76799),
        ("bytes=76000-999999", 76000, 76799),
        ("bytes=-999999", 0, 76799),
    ],
)
def test_get_recording_with_a_range_is_206(world: World, text: str, first: int, last: int) -> None:
    result = get(world, write(world), headers={"Range": text})
    assert (result.status_code, result.content) == (206, WHOLE[first : last + 1])
    assert result.headers["content-range"] == f"bytes {first}-{last}/{len(WHOLE)}"


@pytest.mark.parametrize("text", ["bytes=999999-", "bytes=999999-9999999", "bytes=-0"])
def test_get_recording_with_a_range_outside_is_416(world: World, text: str) -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    result = get(world, write(world), headers={"Range": text})
    assert errors(result, 416) == [("", "range")]
    assert result.headers["content-range"] == f"bytes */{len(WHOLE)}"
    assert len(os.listdir("/proc/self/fd")) <= open_before


def test_head_of_a_recording_has_its_length_and_version(world: World) -> None:
    name = write(world)
    got = get(world, name)
    head = world.api.simulate_head(f"{RECORDINGS}/{name}", headers={"Range": "bytes=0-9"})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == got.headers
    assert world.api.simulate_head(f"{RECORDINGS}/{NO_RECORDING}").status_code == 404


def test_get_recording_with_if_range_is_whole_once_it_changed(world: World) -> None:
    name = write(world)
    os.utime(path_of(world, name), (1_700_000_000, 1_700_000_000))
    headers = get(world, name).headers
    for version in (headers["etag"], headers["last-modified"]):
        assert get(world, name, headers={"Range": "bytes=10-", "If-Range": version}).content == WHOLE[10:]
    path_of(world, name).write_bytes(WHOLE + b"more")
    for version in (headers["etag"], headers["last-modified"], 'W/"1"', "x", ""):
        # The range may even be outside of what is there now.
        result = get(world, name, headers={"Range": "bytes=999999-", "If-Range": version})
        assert (result.status_code, result.content) == (200, WHOLE + b"more")


def test_get_recording_that_the_client_has_is_304(world: World) -> None:
    name = write(world)
    headers = get(world, name).headers
    for known in (
        {"If-None-Match": headers["etag"]},
        {"If-None-Match": f'"x", W/{headers["etag"]}'},
        {"If-None-Match": "*"},
        {"If-Modified-Since": headers["last-modified"]},
    ):
        result = get(world, name, headers=known)
        assert (result.status_code, result.content) == (304, b"")
        assert result.headers["etag"] == headers["etag"]
    for unknown in (
        {"If-None-Match": '"x"'},
        {"If-None-Match": '"x"', "If-Modified-Since": headers["last-modified"]},
        {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"If-Modified-Since": "yesterday"},
    ):
        assert get(world, name, headers=unknown).status_code == 200


@pytest.mark.parametrize("text", ["bytes=0-1,5-6", "bytes=5-2", "lines=1-2", "bytes=", "bytes=-", "bytes=--1"])
def test_get_recording_with_an_invalid_range_is_whole(world: World, text: str) -> None:
    result = get(world, write(world), headers={"Range": text})
    assert (result.status_code, result.content) == (200, WHOLE)


def test_get_recording_that_is_empty_with_a_range_is_416(world: World) -> None:
    name = write(world, data=b"")
    assert (get(world, name).status_code, get(world, name).content) == (200, b"")
    assert errors(get(world, name, headers={"Range": "bytes=0-"}), 416)


@pytest.mark.parametrize(
    "name", [NO_RECORDING, "x.wav", "..", "..%2f..%2fx.wav", "%2fetc%2fpasswd", f"{NO_RECORDING}%0A", "a" * 5000]
)
def test_get_recording_with_an_unknown_name_is_404(world: World, name: str) -> None:
    assert errors(get(world, name), 404) == [("", "not_found")]


def test_get_recording_of_another_integrator_is_404(world: World) -> None:
    assert errors(get(world, write(world, "beta")), 404) == [("", "not_found")]


def test_get_recording_that_is_not_a_file_is_404(world: World) -> None:
    folder, link, pipe = (f"{new_ref()}.wav" for _ in range(3))
    path_of(world, folder).mkdir(parents=True)
    path_of(world, link).symlink_to("/etc/passwd")
    os.mkfifo(path_of(world, pipe))
    for name in (folder, link, pipe):
        assert errors(get(world, name), 404) == [("", "not_found")]


def test_get_recording_without_the_scope_is_refused(world: World) -> None:
    name = write(world)
    assert errors(get(world, name, headers=STRANGER), 401)
    headers = {"Authorization": "Bearer the-wallboards-token"}
    assert errors(get(world, name, headers=headers), 403) == [("", "scope")]


# Links ----------------------------------------------------------------------------------------------------


def link(world: World, name: str, body: object) -> Any:
    return world.api.simulate_post(f"{RECORDINGS}/{name}/link", json=body)


def test_link_opens_its_recording_only(world: World) -> None:
    name, other = write(world), write(world)
    result = link(world, name, {"expires_in": 60})
    assert result.status_code == 200
    url = urlsplit(result.json["url"])
    assert abs(result.json["expires_at"] - time.time() - 60) < 10
    assert parse_qs(url.query)["expires"] == [str(result.json["expires_at"])]
    assert world.api.simulate_get(url.path, query_string=url.query, headers=STRANGER).content == WHOLE
    assert errors(get(world, other, query_string=url.query, headers=STRANGER), 401)
    calls = world.api.simulate_get("/click2dial/calls", query_string=url.query, headers=STRANGER)
    assert errors(calls, 401)


def test_link_without_a_time_expires_in_an_hour(world: World) -> None:
    assert abs(link(world, write(world), {}).json["expires_at"] - time.time() - 3600) < 10


def test_link_that_has_expired_is_403(world: World) -> None:
    name = write(world)
    query = Links(LINK_KEY, "acme").query(name, int(time.time()) - 1)
    assert errors(get(world, name, query_string=query, headers=STRANGER), 403) == [("", "expired")]
    assert world.services.counted == [403]


@pytest.mark.parametrize("expires", ["", "1.0", "+1", "x", "9" * 13])
def test_link_with_an_invalid_time_opens_nothing(world: World, expires: str) -> None:
    params = {"expires": expires, "signature": "0" * 64}
    assert errors(get(world, write(world), params=params, headers=STRANGER), 401)
    assert get(world, write(world), params=params).status_code == 200


def test_guessed_signatures_past_the_rate_are_429(world: World) -> None:
    name = write(world)
    world.configure(integrators={"rate": Rate(failed=0.001, burst=3000)})
    guess = {"expires": "9999999999", "signature": "é" * 64}
    statuses = [get(world, name, params=guess, headers=STRANGER).status_code for _ in range(4)]
    assert statuses == [401, 401, 401, 429]
    good = Links(LINK_KEY, "acme").query(name, int(time.time()) + 60)
    assert get(world, name, query_string=good, headers=STRANGER).status_code == 429


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"expires_in": 0}, ("expires_in", "range")),
        ({"expires_in": 7201}, ("expires_in", "range")),
        ({"expires_in": 1.5}, ("expires_in", "range")),
        ({"expires_in": True}, ("expires_in", "range")),
        ({"expires_in": "60"}, ("expires_in", "range")),
        ({"expires": 5}, ("expires", "unknown")),
        ([], ("", "type")),
    ],
)
def test_create_link_with_a_wrong_body_is_422(world: World, body: object, fault: tuple[str, str]) -> None:
    assert errors(link(world, write(world), body), 422) == [fault]


def test_create_link_to_no_recording_is_404(world: World) -> None:
    for name in (NO_RECORDING, "x"):
        assert errors(link(world, name, {}), 404) == [("", "not_found")]


def test_link_without_a_configured_key_is_404(world: World) -> None:
    name = write(world)
    query = Links(LINK_KEY, "acme").query(name, int(time.time()) + 60)
    world.configure(recordings={"link_key": None})
    assert errors(link(world, name, {}), 404) == [("", "not_found")]
    assert errors(get(world, name, query_string=query, headers=STRANGER), 401)


# A folder that hangs --------------------------------------------------------------------------------------


def test_get_recording_of_a_folder_that_hangs_is_503(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(world)
    monkeypatch.setattr(world.services, "recordings", Folder("recordings", patience=0.01))
    with hung_disk() as disk:
        monkeypatch.setattr(recordings, "open_regular", disk.hang)
        for _ in range(THREADS + 2):
            result = get(world, name)
            assert errors(result, 503) == [("", "unavailable")]
            assert result.headers["retry-after"]
        eventually(lambda: disk.asked == THREADS)


def test_recording_that_hangs_while_read_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.wav").write_bytes(WHOLE)
    folder = Folder("recordings", patience=0.05)
    file = recordings._File(str(tmp_path / "x.wav"), folder)
    assert file.read(10) == WHOLE[:10]
    with hung_disk() as disk:
        monkeypatch.setattr(file._stream, "read", disk.hang, raising=False)
        with pytest.raises(Hangs):
            file.read(10)
        file.close()
        # Not while a thread reads it.
        assert not file._stream.closed


def test_recording_is_closed_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On FUSE, closing waits for its process: a client that left while the mount hung stopped the node."""
    (tmp_path / "x.wav").write_bytes(WHOLE)
    folder = Folder("recordings", patience=0.01)
    file = recordings._File(str(tmp_path / "x.wav"), folder)
    with hung_disk() as disk:
        monkeypatch.setattr(file, "_stream", SimpleNamespace(close=disk.before(file._stream.close)))
        file.close()
        assert folder.stuck == 1


# DELETE ---------------------------------------------------------------------------------------------------


def test_delete_recording_is_logged_and_gone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    name = write(world)
    result = world.api.simulate_delete(f"{RECORDINGS}/{name}")
    assert (result.status_code, result.content) == (204, b"")
    assert not path_of(world, name).exists()
    (line,) = [record for record in caplog.records if record.message == "recording_deleted"]
    assert (line.__dict__["recording"], line.__dict__["by"]) == (name, "acme")
    assert world.api.simulate_delete(f"{RECORDINGS}/{name}").status_code == 404


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "notes.txt", NO_RECORDING])
def test_delete_recording_of_another_name_is_404(world: World, name: str) -> None:
    assert errors(world.api.simulate_delete(f"{RECORDINGS}/{name}"), 404)


def test_delete_recording_of_a_live_call_is_409(world: World) -> None:
    order = {"agent": "1000", "callee": "0820001234", "outbound_id": "27115550000"}
    ref = world.api.simulate_post("/click2dial/calls", json=order).json["call_ref"]
    result = world.api.simulate_delete(f"{RECORDINGS}/{ref}.wav")
    assert errors(result, 409) == [("", "state")]
    assert result.json["errors"][0]["state"] == "queued"


def test_delete_recording_takes_its_own_scope(world: World) -> None:
    name = write(world)
    result = world.api.simulate_delete(f"{RECORDINGS}/{name}", headers={"Authorization": "Bearer the-wallboards-token"})
    assert errors(result, 403) == [("", "scope")]
    assert path_of(world, name).exists()


# Rights and disks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_recording_that_the_node_may_not_touch_is_503(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str, error: OSError
) -> None:
    """It is there still: a 404 would say that it is gone."""
    name = write(world)

    def refuse(*_args: Any) -> None:
        raise error

    monkeypatch.setattr(recordings, "open_regular", refuse)
    monkeypatch.setattr(os, "unlink", refuse)
    result = world.api.simulate_request(method, f"{RECORDINGS}/{name}")
    assert errors(result, 503) == [("", "unavailable")]
    assert result.headers["retry-after"] == "5"
    (line,) = [record for record in caplog.records if record.message == "recording_unusable"]
    assert line.__dict__["reason"] == error.strerror


@pytest.mark.parametrize("kind", ["folder", "link", "socket"])
def test_get_recording_that_is_no_file_is_404(world: World, tmp_path: Path, kind: str) -> None:
    name = write(world)
    path = path_of(world, name)
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    else:
        with socket.socket(socket.AF_UNIX) as sock:
            short = tmp_path / "s"
            sock.bind(str(short))
            short.rename(path)
    assert errors(get(world, name), 404) == [("", "not_found")]


def test_delete_recording_that_is_a_folder_is_404(world: World) -> None:
    name = write(world)
    path_of(world, name).unlink()
    path_of(world, name).mkdir()
    assert errors(world.api.simulate_delete(f"{RECORDINGS}/{name}"), 404) == [("", "not_found")]
