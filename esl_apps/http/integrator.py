"""An integrator's port: click-to-dial calls and their recordings."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import falcon
import gevent

from esl_apps.calls import Full, snapshot
from esl_apps.config import Config, Integrator, within
from esl_apps.core import cdr
from esl_apps.core.apps import click2dial
from esl_apps.core.apps.click2dial import PATTERNS, Order, Refused
from esl_apps.core.apps.common import recording_path
from esl_apps.core.cards import Unavailable
from esl_apps.core.cdr import Attempt, new_ref
from esl_apps.core.spending import BREAKER, Charge
from esl_apps.http.access import CALL, READ, RECORD, Door, Holder, holders
from esl_apps.http.common import Problem, answer, application, problem, read_json, spent
from esl_apps.http.links import Links
from esl_apps.http.openapi import describe
from esl_apps.outgoing import Spent
from esl_apps.redisclient import ERRORS
from esl_apps.service import Node
from esl_apps.store import same_body

log = logging.getLogger(__name__)

_PREFIX = "/click2dial/calls"
_RECORDINGS = "/click2dial/recordings"
#: Seconds in which a call of another node's may not be in Redis yet, and how often it is looked for meanwhile.
_YOUNG, _YOUNG_TRIES = 0.5, 10
_REF = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_RECORDING = re.compile(_REF.pattern + r"\.wav")
_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_FILTERS = ("state", "agent", "contact_ref")
_PAGE, _MOST = 50, 500
#: Seconds that a client is asked to stay away: as long as a switch or a Redis takes to come back.
_RETRY_AFTER = {"Retry-After": "5"}
_CHUNK = 65536
#: Seconds that a link to a recording is good for where nothing is said.
_LINK = 3600


def build(node: Node, name: str) -> falcon.App[falcon.Request, falcon.Response]:
    """The WSGI application of the integrator of this name; its settings are read at each request, so a
    reload needs no new port."""
    port = _Port(node, name)
    app = application("the request", port.door)
    app.add_route(_PREFIX, _Calls(port))
    app.add_route(_PREFIX + "/{ref}", _Call(port))
    app.add_route(_RECORDINGS + "/{name}", _Recording(port))
    app.add_route(_RECORDINGS + "/{name}/link", _Link(port))
    app.add_route("/call.php", _Legacy(port))
    app.add_route("/openapi.json", _OpenApi(port))
    return app


class _Port:
    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.name = name
        self.door = Door(lambda: self.settings.rate, node.refused)
        #: The tokens of a configuration; a reload brings another one, and with it others.
        self._known: tuple[Config, list[Holder]] | None = None

    @property
    def settings(self) -> Integrator:
        one = self.node.config.integrator(self.name)
        assert one is not None  # a reload keeps every port's integrator
        return one

    def authorise(self, req: falcon.Request, scope: str) -> None:
        """:raises Problem: as ``Door.check``."""
        config = self.node.config
        if self._known is None or self._known[0] is not config:
            self._known = config, holders(self.settings, self.settings.tokens)
        self.door.check(req, self._known[1], scope)

    @property
    def links(self) -> Links | None:
        """None where links are off."""
        key = self.node.config.recordings.link_key
        return Links(key, self.name) if key else None

    # Calls --------------------------------------------------------------------------------------------

    def order(self, fields: dict[str, Any], *, peek: bool = False) -> Order:
        try:
            return self.node.clients[self.name].read(fields, peek=peek)
        except Refused as refused:
            self.node.refused(422)
            raise Problem(
                422,
                [{"field": fault.field, "code": fault.code, "message": fault.message} for fault in refused.faults],
            ) from None

    def place(self, fields: dict[str, Any], ref: str) -> dict[str, Any]:
        try:
            attempt = self.node.outgoing.click2dial(self.order(fields), self.node.clients[self.name], ref)
        except Full as full:
            self.node.refused(503)
            raise problem(503, "unavailable", str(full), headers=_RETRY_AFTER) from None
        except Spent as over:
            refusal = spent(over.refusal)
            self.node.metrics.refused.labels(str(refusal.status)).inc()
            raise refusal from None
        except Unavailable:
            self.node.metrics.refused.labels("503").inc()
            raise problem(503, "unavailable", "redis: no answer", headers=_RETRY_AFTER) from None
        return {"call_ref": attempt.call_ref, "contact_ref": attempt.contact_ref, "state": attempt.state}

    def place_once(self, key: str, raw: bytes, fields: dict[str, Any]) -> dict[str, Any]:
        """With an idempotency key: the first request dials, later ones get its call."""
        if not _KEY.fullmatch(key):
            raise problem(422, "pattern", "expected 1 to 200 printable characters, no spaces", "Idempotency-Key")
        ref = new_ref()
        try:
            claim = self.node.store.claim(self.name, key, raw, ref)
        except ERRORS:
            raise problem(503, "unavailable", "redis: no answer", headers=_RETRY_AFTER) from None
        if claim is None:
            return self._place_claimed(fields, ref, key)
        if not same_body(claim, raw):
            raise problem(409, "key_reused", "this key came with another body before", "Idempotency-Key")
        call = self.find(claim.call_ref)
        if call is None:
            try:
                # Killed between the claim and the call: nobody will ever answer for that request.
                mine = self.node.roster.is_dead(claim.boot) and self.node.store.reclaim(self.name, key, claim, ref)
            except ERRORS:
                raise problem(503, "unavailable", "redis: no answer", headers=_RETRY_AFTER) from None
            if mine:
                return self._place_claimed(fields, ref, key)
            raise problem(409, "in_progress", "the first request with this key is still running", "Idempotency-Key")
        return {field: call[field] for field in ("call_ref", "contact_ref", "state")}

    def _place_claimed(self, fields: dict[str, Any], ref: str, key: str) -> dict[str, Any]:
        try:
            return self.place(fields, ref)
        except Exception:
            # Nothing was dialled: the key is as if it had not come.
            self.node.store.release(self.name, key)
            raise

    def find(self, ref: str) -> dict[str, Any] | None:
        """A call of this integrator, live or recent; None for unknown and for other integrators' alike."""
        if not _REF.fullmatch(ref):
            return None
        live = self.node.calls.live.get(ref)
        # Another node that has just placed it says so a moment later: who asks this one is not told that there is none.
        tries = _YOUNG_TRIES if abs(time.time() - cdr.began(ref)) < _YOUNG else 1
        try:
            call = snapshot(live.attempt) if live is not None else self.node.store.call(ref)
            while call is None and (tries := tries - 1):
                gevent.sleep(_YOUNG / _YOUNG_TRIES)
                call = self.node.store.call(ref)
        except ERRORS:
            raise problem(503, "unavailable", "redis: no answer", headers=_RETRY_AFTER) from None
        return call if call is not None and call["integrator"] == self.name else None

    def dry_run(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Every check and its verdict; nothing is dialled and no campaign's turn is taken."""
        faults: list[Any] = []
        client = self.node.clients[self.name]
        # An order that can't be read is asked for as a call to nowhere: the limits may be reached all the same.
        charges = [Charge(Attempt(click2dial.REF, self.name, None, None, None, "external"), client.levels, None)]
        try:
            order = client.read(fields, peek=True)
            charges = click2dial.charges(click2dial.new_attempt(client, order, self.node.settings), order, client)
        except Refused as refused:
            faults = refused.faults
        checks = [
            {
                "check": field,
                "ok": not (wrong := [fault for fault in faults if fault.field == field]),
                "message": "; ".join(fault.message for fault in wrong) or "ok",
            }
            for field in dict.fromkeys([*PATTERNS, *(fault.field for fault in faults)])
        ]
        checks += self._spending(charges)
        reasons = self.node.not_ready()
        checks.append({"check": "ready", "ok": not reasons, "message": "; ".join(reasons) or "ok"})
        return {"dry_run": True, "ok": all(check["ok"] for check in checks), "checks": checks}


    def _spending(self, charges: list[Charge]) -> list[dict[str, Any]]:
        try:
            refusal = self.node.usage.check(*charges)
        except Unavailable:
            return [{"check": "limits", "ok": False, "message": "redis: no answer"}]
        tripped = refusal is not None and refusal.what == BREAKER
        message = "ok" if refusal is None else refusal.message
        return [
            {"check": "limits", "ok": refusal is None or tripped, "message": "ok" if tripped else message},
            {"check": "breaker", "ok": not tripped, "message": message if tripped else "ok"},
        ]


class _Calls:
    def __init__(self, port: _Port) -> None:
        self._port = port

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._port.authorise(req, CALL)
        raw, fields = read_json(req)
        try:
            dry_run = req.get_param_as_bool("dry_run", blank_as_true=True)
        except falcon.HTTPBadRequest:
            raise problem(422, "value", "expected 1 or 0", "dry_run") from None
        if dry_run:
            answer(resp, 200, self._port.dry_run(fields))
            return
        key = req.get_header("Idempotency-Key")
        call = self._port.place(fields, new_ref()) if key is None else self._port.place_once(key, raw, fields)
        answer(resp, 202, call)
        resp.location = f"{_PREFIX}/{call['call_ref']}"

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._port.authorise(req, READ)
        wanted = {field: value for field in _FILTERS if (value := req.get_param(field)) is not None}
        state = wanted.get("state")
        if state is not None and state not in cdr.STATES:
            raise problem(422, "value", f"expected one of {', '.join(cdr.STATES)}", "state")
        before = req.get_param("before")
        if before is not None and not _REF.fullmatch(before):
            raise problem(422, "value", "expected the value of an earlier answer's next", "before")
        try:
            limit = req.get_param_as_int("limit", min_value=1, max_value=_MOST, default=_PAGE)
        except falcon.HTTPBadRequest:
            raise problem(422, "value", f"expected a number from 1 to {_MOST}", "limit") from None
        try:
            calls, following = self._port.node.store.calls(self._port.name, wanted, limit, before)
        except ERRORS:
            raise problem(503, "unavailable", "redis: no answer", headers=_RETRY_AFTER) from None
        answer(resp, 200, {"calls": calls, "next": following})


class _Call:
    def __init__(self, port: _Port) -> None:
        self._port = port

    def _find(self, req: falcon.Request, ref: str, scope: str) -> dict[str, Any]:
        self._port.authorise(req, scope)
        call = self._port.find(ref)
        if call is None:
            raise problem(404, "not_found", "no such call")
        return call

    def on_get(self, req: falcon.Request, resp: falcon.Response, ref: str) -> None:
        answer(resp, 200, self._find(req, ref, READ))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, ref: str) -> None:
        call = self._find(req, ref, CALL)
        if call["state"] == cdr.ENDED:
            answer(resp, 200, call)
            return
        self._port.node.cancel(call)
        answer(resp, 202, {field: call[field] for field in ("call_ref", "contact_ref", "state")})


class _Legacy:
    """``GET /call.php``: Click2Dial's first form. Off unless ``legacy_get`` lists who may use it."""

    def __init__(self, port: _Port) -> None:
        self._port = port

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        legacy = self._port.settings.legacy_get
        if not legacy:
            raise problem(404, "not_found", "no such resource")
        if not within(req.env.get("REMOTE_ADDR") or "", [ipaddress.ip_network(text) for text in legacy.allow]):
            self._port.authorise(req, CALL)
        for field, value in req.params.items():
            if not isinstance(value, str):
                raise problem(422, "value", "expected one value", field[:40])
        call = self._port.place(dict(req.params), new_ref())
        answer(resp, 202, call)
        resp.location = f"{_PREFIX}/{call['call_ref']}"


class _OpenApi:
    def __init__(self, port: _Port) -> None:
        self._port = port

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        answer(resp, 200, describe(self._port.node.clients[self._port.name]))


class _Recording:
    def __init__(self, port: _Port) -> None:
        self._port = port

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        if not self._linked(req, name):
            self._port.authorise(req, RECORD)
        stream = _recording(self._port, name)
        size = os.fstat(stream.fileno()).st_size
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
        stream.seek(first)
        resp.set_stream(_Slice(stream, last - first + 1), last - first + 1)

    def _linked(self, req: falcon.Request, name: str) -> bool:
        """Whether a signed link leads here; one that is no link of ours is as if it were not there.

        :raises Problem: 403 it was one, and its time is over; 429 too many wrong ones came from this address.
        """
        signature = req.get_param("signature")
        links = self._port.links
        if signature is None or links is None:
            return False
        door = self._port.door
        door.may_guess(req)
        expires = links.expires(name, req.get_param("expires") or "", signature)
        if expires is None:
            door.guessed(req)
            return False
        if expires <= time.time():
            self._port.node.refused(403)
            raise problem(403, "expired", "this link is no longer good")
        return True


class _Link:
    """``POST …/recordings/NAME/link``: an address of a recording that needs no token, for a time."""

    def __init__(self, port: _Port) -> None:
        self._port = port

    def on_post(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        self._port.authorise(req, RECORD)
        links = self._port.links
        if links is None:
            raise problem(404, "not_found", "no such resource")
        _raw, fields = read_json(req)
        longest = self._port.node.config.recordings.link_longest
        seconds = fields.get("expires_in", min(_LINK, longest))
        errors = [
            {"field": field[:64], "code": "unknown", "message": "expected expires_in alone"}
            for field in fields
            if field != "expires_in"
        ]
        if not isinstance(seconds, int) or isinstance(seconds, bool) or not 1 <= seconds <= longest:
            message = f"expected whole seconds from 1 to {longest}"
            errors.append({"field": "expires_in", "code": "range", "message": message})
        if errors:
            raise Problem(422, errors)
        _recording(self._port, name).close()
        expires = int(time.time()) + seconds
        answer(resp, 200, {"url": f"{_RECORDINGS}/{name}?{links.query(name, expires)}", "expires_at": expires})


def _recording(port: _Port, name: str) -> BinaryIO:
    """:raises Problem: 404. Only a name that we made reaches the file system, and only below this integrator's
    folder."""
    if not _RECORDING.fullmatch(name):
        raise problem(404, "not_found", "no such recording")
    try:
        return _open(recording_path(port.node.config.recordings.dir, port.name, name))
    except OSError:
        raise problem(404, "not_found", "no such recording") from None


def _open(path: str) -> BinaryIO:
    """A file, and no folder, device or link to something else. :raises OSError: it is none."""
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise FileNotFoundError(path)
    return stream


def _part(text: str, size: int) -> tuple[int, int] | None:
    """First and last byte that a Range header asks for, first behind last where the file has none of it.

    None: no range, several, or one that makes no sense; all of the file is the answer then (RFC 9110, 14.2).
    """
    found = _RANGE.fullmatch(text)
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return (max(0, size - int(found[2])), size - 1) if int(found[2]) else (size, size - 1)
    first = int(found[1])
    if found[2] and int(found[2]) < first:
        return None
    return first, min(int(found[2]), size - 1) if found[2] else size - 1


class _Slice:
    """A part of an open file, as WSGI streams it."""

    def __init__(self, stream: Any, length: int) -> None:
        self._stream = stream
        self._left = length

    def read(self, size: int = _CHUNK) -> bytes:
        data: bytes = self._stream.read(min(size if size > 0 else _CHUNK, self._left))
        self._left -= len(data)
        return data

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def close(self) -> None:
        self._stream.close()
