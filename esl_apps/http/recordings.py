"""Serve recordings of calls, with ranges and signed links."""

from __future__ import annotations

import os
import re
import time
from typing import Any

import falcon

from esl_apps.apps.legs import recording_path
from esl_apps.core.faults import Fault, Refused
from esl_apps.http.access import RECORD
from esl_apps.http.body import answer, read_json
from esl_apps.http.calls_port import REF, CallsPort
from esl_apps.http.errors import problem
from esl_apps.http.parameters import in_path, in_query
from esl_apps.http.routes import TOKEN, Answer, Operation, Route
from esl_apps.http.schemas import Link, LinkOrder
from esl_apps.process.files import open_regular
from esl_apps.process.folder import Folder, Hangs

_RECORDINGS = "/click2dial/recordings"
_RECORDING = re.compile(REF.pattern + r"\.wav")
_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")
_CHUNK = 65536
#: Seconds until a link expires, if the request doesn't say.
_LINK = 3600


# Handlers -------------------------------------------------------------------------------------------------


def get_recording(port: CallsPort, req: falcon.Request, resp: falcon.Response, name: str) -> None:
    stream = _recording(port, name)
    size = stream.size
    part = _part(req.get_header("Range") or "", size)
    first, last = part or (0, size - 1)
    if part and first > last:
        stream.close()
        headers = {"Content-Range": f"bytes */{size}"}
        raise problem(416, "range", f"expected a range within {size} bytes", headers=headers)
    resp.set_header("Accept-Ranges", "bytes")
    resp.content_type = "audio/wav"
    if part:
        resp.status = 206
        resp.content_range = (first, last, size)
    stream.limit(first, last - first + 1)
    resp.set_stream(stream, last - first + 1)


def create_link(port: CallsPort, req: falcon.Request, resp: falcon.Response, name: str) -> None:
    """``POST …/recordings/NAME/link``: an address of a recording that needs no token until it expires."""
    links = port.links
    if links is None:
        raise problem(404, "not_found", "no such resource")
    _raw, fields = read_json(req)
    longest = port.services.policy.config.recordings.link_longest
    seconds = fields.get("expires_in", min(_LINK, longest))
    faults = [Fault(field[:64], "unknown", "expected expires_in alone") for field in fields if field != "expires_in"]
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 1 <= seconds <= longest:
        faults.append(Fault("expires_in", "range", f"expected whole seconds from 1 to {longest}"))
    if faults:
        raise Refused(faults)
    _recording(port, name).close()
    expires = int(time.time()) + seconds
    answer(resp, 200, Link(f"{_RECORDINGS}/{name}?{links.query(name, expires)}", expires))


def admit_link_or_token(port: CallsPort, req: falcon.Request, scopes: tuple[str, ...], params: dict[str, Any]) -> None:
    """A signed link opens its recording without a token."""
    if not _linked(port, req, params["name"]):
        port.admit(req, scopes, params)


def _linked(port: CallsPort, req: falcon.Request, name: str) -> bool:
    """Return whether the request has a signed link for this recording. A wrong signature is ignored.

    :raises Problem: 403 for a link that has expired; 429 for too many wrong signatures from this address.
    """
    signature = req.get_param("signature")
    links = port.links
    if signature is None or links is None:
        return False
    port.door.may_guess(req)
    expires = links.expires(name, req.get_param("expires") or "", signature)
    if expires is None:
        port.door.guessed(req)
        return False
    if expires <= time.time():
        port.count(403)
        raise problem(403, "expired", "this link has expired")
    return True


# Files ----------------------------------------------------------------------------------------------------


def _recording(port: CallsPort, name: str) -> _File:
    """Open a recording of this integrator. Only names of our own form reach the file system.

    :raises Problem: 404; 503 if the folder doesn't answer.
    """
    if not _RECORDING.fullmatch(name):
        raise problem(404, "not_found", "no such recording")
    disk = port.services.recordings
    try:
        path = recording_path(port.services.policy.config.recordings.dir, port.name, name)
        return disk.run(_File, path, disk)
    except Hangs:
        headers = {"Retry-After": "5"}
        raise problem(503, "unavailable", "the folder of the recordings doesn't answer", headers=headers) from None
    except OSError:
        raise problem(404, "not_found", "no such recording") from None


class _File:
    """A recording, or a part of one, for WSGI to stream."""

    def __init__(self, path: str, disk: Folder) -> None:
        """:raises OSError: there is none, or it is a folder, a device or a link."""
        self._disk = disk
        self._hangs = False
        self._stream = os.fdopen(open_regular(path), "rb", buffering=0)
        self.size = self._left = os.fstat(self._stream.fileno()).st_size

    def limit(self, first: int, length: int) -> None:
        """Read this part only."""
        self._stream.seek(first)
        self._left = length

    def read(self, size: int | None = None) -> bytes:
        """:raises OSError: it can't be read, or the folder doesn't answer. The client sees a body that is cut short."""
        try:
            data: bytes = self._disk.run(self._stream.read, min(size or _CHUNK, self._left))
        except Hangs:
            self._hangs = True
            raise
        self._left -= len(data)
        return data

    def close(self) -> None:
        # Closing waits, too. A thread that hangs in ``read`` holds the stream, which closes once it returns.
        if not self._hangs:
            self._stream.close()


def _part(text: str, size: int) -> tuple[int, int] | None:
    """Return the first and last byte that a Range header asks for; first > last if the file has none of them.

    None for no range, several ranges or an invalid one: then the answer is the whole file (RFC 9110, 14.2).
    """
    match = _RANGE.fullmatch(text)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return (max(0, size - int(match[2])), size - 1) if int(match[2]) else (size, size - 1)
    first = int(match[1])
    if match[2] and int(match[2]) < first:
        return None
    return first, min(int(match[2]), size - 1) if match[2] else size - 1


# Routes ---------------------------------------------------------------------------------------------------

_NAME = in_path("name", {"type": "string", "pattern": r"^[0-9a-f-]{36}\.wav$"})

ROUTES = (
    Route(
        _RECORDINGS + "/{name}",
        (
            Operation(
                "GET",
                "getRecording",
                "A recording: stereo WAV, the agent left; Range is understood",
                get_recording,
                scopes=(RECORD,),
                admit=admit_link_or_token,
                security=(*TOKEN, {"link": []}),
                parameters=(
                    _NAME,
                    in_query(
                        "expires",
                        {"type": "string", "pattern": "^[0-9]{1,12}$"},
                        "When a signed link expires (Unix seconds); goes with `signature`",
                    ),
                ),
                answers={
                    200: Answer("The whole", media="audio/wav"),
                    206: Answer("The range", media="audio/wav"),
                },
                errors=(401, 403, 404, 416, 429, 503),
            ),
        ),
    ),
    Route(
        _RECORDINGS + "/{name}/link",
        (
            Operation(
                "POST",
                "createRecordingLink",
                "An address of a recording that needs no token, until it expires",
                create_link,
                scopes=(RECORD,),
                parameters=(_NAME,),
                body=LinkOrder,
                answers={200: Answer("The link", Link)},
                errors=(400, 401, 403, 404, 413, 415, 422, 429, 503),
            ),
        ),
    ),
)
