"""Serve recordings of calls, with ranges and signed links."""

from __future__ import annotations

import errno
import logging
import os
import time
from typing import Any

import falcon

from esl_apps.apps.legs import recording_path
from esl_apps.core import terms
from esl_apps.core.actions import Undone
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.status import is_ref
from esl_apps.http.access import RECORD, RECORD_DELETE
from esl_apps.http.body import answer, read_json
from esl_apps.http.calls_port import CallsPort
from esl_apps.http.errors import Problem, problem
from esl_apps.http.parameters import in_header, in_path, in_query
from esl_apps.http.ranges import Version, part
from esl_apps.http.routes import TOKEN, Answer, Operation, Route
from esl_apps.http.schemas import Link, LinkOrder
from esl_apps.process.files import NotRegular, open_regular
from esl_apps.process.folder import Folder, Hangs

log = logging.getLogger(__name__)

_RECORDINGS = "/click2dial/recordings"
_CHUNK = 65536
#: How a path fails that leads to no recording: there is nothing, a folder, a link, a socket or a device.
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError, NotRegular)
_NO_FILE = (errno.ELOOP, errno.ENXIO)
#: Seconds until a link expires, if the request doesn't say.
_LINK = 3600


# Handlers -------------------------------------------------------------------------------------------------


def get_recording(port: CallsPort, req: falcon.Request, resp: falcon.Response, name: str) -> None:
    stream = _recording(port, name)
    size, version = stream.size, stream.version
    resp.set_header("Accept-Ranges", "bytes")
    resp.set_header("ETag", version.etag)
    resp.set_header("Last-Modified", version.last_modified)
    if version.is_known(req.get_header("If-None-Match"), req.get_header("If-Modified-Since")):
        stream.close()
        resp.status = 304
        return
    resp.content_type = "audio/wav"
    if req.method == "HEAD":
        # A range is for GET only.
        stream.close()
        resp.content_length = size
        return
    if_range = req.get_header("If-Range")
    wanted = (
        part(req.get_header("Range") or "", size)
        if if_range is None or version.is_same(if_range, time.time())
        else None
    )
    first, last = wanted or (0, size - 1)
    if wanted and first > last:
        stream.close()
        headers = {"Content-Range": f"bytes */{size}"}
        raise problem(416, "range", f"expected a range within {size} bytes", headers=headers)
    if wanted:
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


def delete_recording(port: CallsPort, req: falcon.Request, resp: falcon.Response, name: str) -> None:
    path = _path(port, name)
    call = port.find(name.removesuffix(".wav"))
    if call is not None and call["state"] != terms.ENDED:
        raise Undone(409, "state", "the call is still on", state=call["state"])
    try:
        port.services.recordings.run(os.unlink, path)
    except OSError as error:
        raise _unserved(path, error) from None
    log.info("recording_deleted", extra={"integrator": port.name, "recording": name, "by": port.token(req).name})
    resp.status = 204


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
        port.services.refused(403)
        raise problem(403, "expired", "this link has expired")
    return True


# Files ----------------------------------------------------------------------------------------------------


def _recording(port: CallsPort, name: str) -> _File:
    """Open a recording of this integrator. Only names of our own form reach the file system.

    :raises Problem: 404; 503 if the folder doesn't answer, or refuses.
    """
    path, disk = _path(port, name), port.services.recordings
    try:
        return disk.run(_File, path, disk)
    except OSError as error:
        raise _unserved(path, error) from None


def _path(port: CallsPort, name: str) -> str:
    """Return where a recording of this integrator is, if it exists. :raises Problem: 404; no call has this name."""
    if not (name.endswith(".wav") and is_ref(name.removesuffix(".wav"))):
        raise _no_recording()
    try:
        return recording_path(port.services.policy.config.recordings.dir, port.name, name)
    except OSError:
        # A reference whose time is past the year 9999.
        raise _no_recording() from None


def _no_recording() -> Problem:
    return problem(404, "not_found", "no such recording")


def _unserved(path: str, error: OSError) -> Problem:
    """Return the answer for a recording that can't be opened or deleted: a client takes a 404 for "it is gone"."""
    if isinstance(error, _ABSENT) or error.errno in _NO_FILE:
        return _no_recording()
    what = "doesn't answer"
    if not isinstance(error, Hangs):
        what = "can't be used"
        log.error("recording_unusable", extra={"path": path, "reason": error.strerror or str(error)})
    return problem(503, "unavailable", f"the folder of the recordings {what}", headers={"Retry-After": "5"})


class _File:
    """A recording, or a part of one, for WSGI to stream."""

    def __init__(self, path: str, disk: Folder) -> None:
        """:raises OSError: there is none, or it is a folder, a device or a link."""
        self._disk = disk
        self._hangs = False
        self._stream = os.fdopen(open_regular(path), "rb", buffering=0)
        status = os.fstat(self._stream.fileno())
        self.size = self._left = status.st_size
        self.version = Version.of(status.st_size, status.st_mtime_ns)

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
        # A thread that hangs in ``read`` holds the stream, which closes once it returns.
        if not self._hangs:
            self._disk.close(self._stream)


# Routes ---------------------------------------------------------------------------------------------------

_VERSION = {name: {"schema": {"type": "string"}} for name in ("ETag", "Last-Modified")}
_NAME = in_path("name", {"type": "string", "pattern": r"^[0-9a-f-]{36}\.wav$"})

ROUTES = (
    Route(
        _RECORDINGS + "/{name}",
        (
            Operation(
                "GET",
                "getRecording",
                "A recording: stereo WAV, the agent left; Range and If-Range are understood",
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
                    in_header("Range", str, "One range of bytes"),
                    in_header(
                        "If-Range", str, "`ETag` or `Last-Modified` of an earlier part: the whole, if it changed"
                    ),
                    in_header("If-None-Match", str, "`ETag` of an earlier answer"),
                ),
                answers={
                    200: Answer("The whole", media="audio/wav", headers=_VERSION),
                    206: Answer("The range", media="audio/wav", headers=_VERSION),
                    304: Answer("The client has it already", media="audio/wav", headers=_VERSION),
                },
                errors=(401, 403, 404, 416, 429, 503),
            ),
            Operation(
                "DELETE",
                "deleteRecording",
                "Delete a recording for good, once its call has ended",
                delete_recording,
                scopes=(RECORD_DELETE,),
                parameters=(_NAME,),
                answers={204: Answer("Deleted")},
                errors=(401, 403, 404, 409, 429, 503),
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
