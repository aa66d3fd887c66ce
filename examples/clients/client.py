"""A client of esl_apps in Python: place a call, follow it, verify its webhook, read its record, fetch its recording.

Needs Python 3.11 and redis (``pip install redis``). README.rst lists the environment variables.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import http.server
import json
import os
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import redis

API, TOKEN = os.environ["API_URL"], os.environ["API_TOKEN"]
# Seconds in which a call is placed or given up. The key of a request whose node has died is free again after 60.
PATIENCE = 90
CDRS = "enigma:notifications:cdr"

Json = dict[str, Any]


def ask(method: str, path: str, body: Json | None = None, timeout: float = 30, **headers: str) -> Any:
    """Send a request and return the open answer. :raises urllib.error.HTTPError: it isn't 2xx."""
    request = urllib.request.Request(API + path, method=method, headers={"Authorization": f"Bearer {TOKEN}"})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    return urllib.request.urlopen(request, timeout=timeout)


# Place a call ---------------------------------------------------------------------------------------------


def place(order: Json) -> str:
    """Place a call, exactly one, and return its reference. The key makes it safe to ask again."""
    key = str(uuid.uuid4())
    deadline, tries = time.monotonic() + PATIENCE, 0
    while tries < 5 and time.monotonic() < deadline:
        try:
            with ask("POST", "/click2dial/calls", order, Idempotency_Key=key) as answer:
                call: Json = json.load(answer)
                return str(call["call_ref"])
        except urllib.error.HTTPError as error:
            refusal = error.read().decode()
            runs = error.code == 409 and still_runs(refusal)
            if error.code not in (429, 503) and not runs:
                # It says which field is wrong, and what was expected.
                raise SystemExit(f"refused: {refusal}") from None
            tries += not runs
            time.sleep(float(error.headers.get("Retry-After", "1")))
        except (OSError, http.client.HTTPException):
            # No answer: the call may or may not have been placed. The same key finds out.
            time.sleep(2**tries)
            tries += 1
    raise SystemExit("no answer; the call may have been placed")


def still_runs(refusal: str) -> bool:
    """Whether the first request with this key, whose answer was lost, hasn't placed its call yet."""
    with contextlib.suppress(ValueError):
        return any(error["code"] == "in_progress" for error in json.loads(refusal)["errors"])
    return False


# Follow it ------------------------------------------------------------------------------------------------


class Events:
    """The events of some calls, over as many connections as it takes."""

    def __init__(self, **filters: str) -> None:
        self._path = "/click2dial/events?" + urllib.parse.urlencode(filters)
        self._last = ""
        self._answer = self._connect()

    def _connect(self) -> Any:
        # Heartbeats come every 15 s: after 40 s of silence the connection is dead.
        headers = {"Last_Event_ID": self._last} if self._last else {}
        return ask("GET", self._path, timeout=40, **headers)

    def __iter__(self) -> Iterator[tuple[str, Json]]:
        """Yield each event's type and data, once, in order."""
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                yield from self._read()
            time.sleep(1)
            self._reconnect()

    def _reconnect(self) -> None:
        """Connect again, for as long as the node restarts or Redis is away."""
        while True:
            try:
                self._answer = self._connect()
                return
            except urllib.error.HTTPError as error:
                if error.code not in (429, 503):
                    raise SystemExit(f"refused: {error.read().decode()}") from None
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(1)

    def _read(self) -> Iterator[tuple[str, Json]]:
        fields: dict[str, str] = {}
        for raw in self._answer:
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
                continue
            self._last = fields.get("id", self._last)
            if "data" in fields:
                yield fields.get("event", ""), json.loads(fields["data"])
            fields = {}


# Receive webhooks -----------------------------------------------------------------------------------------


def is_genuine(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Whether a webhook is ours and fresh (https://www.standardwebhooks.com). ``body``: the bytes as they came."""
    id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > 300:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    expected = b"v1," + base64.b64encode(digest)
    given = headers.get("webhook-signature", "").encode().split()
    # One for each secret, while the secret is being changed.
    return any(hmac.compare_digest(expected, signature) for signature in given)


def receive(listen: str, secret: str) -> queue.Queue[Json]:
    """Serve webhooks in a thread. The queue gets each notification once."""
    notifications: queue.Queue[Json] = queue.Queue()
    seen: set[str] = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if not is_genuine(self.headers, body, secret):  # type: ignore[arg-type]
                self.send_error(401)
                return
            id = self.headers["webhook-id"]
            if id not in seen:
                # It may come again, under the same id: store the id with what you make of it.
                seen.add(id)
                notifications.put(json.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    host, _, port = listen.rpartition(":")
    server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return notifications


# Read records from Redis ----------------------------------------------------------------------------------


def from_list(client: redis.Redis, ref: str) -> Json:
    """Pop records until a call's. A popped record is gone: a real program keeps each."""
    while True:
        popped: Any = client.brpop([CDRS], timeout=30)
        if popped is None:
            raise SystemExit("no record")
        record: Json = json.loads(popped[1])["payload"]
        # Other notifications may be between them, as the closing entries of sessions.
        if record.get("call_ref") == ref:
            return record


def from_stream(client: redis.Redis, ref: str) -> Json:
    """Read records of a stream in a consumer group until a call's."""
    stream, group = f"{CDRS}:stream", "billing"
    try:
        client.xgroup_create(stream, group, id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise
    while True:
        found: Any = client.xreadgroup(group, "worker-1", {stream: ">"}, count=10, block=30_000)
        if not found:
            raise SystemExit("no record")
        for id, fields in found[0][1]:
            record: Json = json.loads(fields[b"json"])["payload"]
            # Acknowledge it once it is stored. With "0" for ">", what is not acknowledged comes again.
            client.xack(stream, group, id)
            if record.get("call_ref") == ref:
                return record


# All of it ------------------------------------------------------------------------------------------------


def main() -> None:
    environ = os.environ
    webhooks = receive(environ["WEBHOOK_LISTEN"], environ["WEBHOOK_SECRET"])
    contact_ref = f"example-{uuid.uuid4()}"
    # Before the call is placed, so that nothing is missed.
    events = Events(contact_ref=contact_ref)
    order = {"agent": environ["AGENT"], "callee": environ["CALLEE"], "outbound_id": environ["OUTBOUND_ID"]}
    ref = place({**order, "contact_ref": contact_ref})
    print("placed", ref)

    for kind, data in events:
        if kind == "call":
            print("event", data["state"])
        if kind == "record":
            break
    print("ended", data["end_reason"])

    while (notification := webhooks.get(timeout=30))["payload"].get("call_ref") != ref:
        pass
    print("webhook", notification["type"], notification["payload"]["end_reason"])

    client = redis.Redis.from_url(environ["REDIS_URL"])
    record = (from_stream if environ.get("RECORDS") == "stream" else from_list)(client, ref)
    print("record", record["end_reason"], "seq", record["seq"])

    if record["recording_url"]:
        with ask("GET", f"/click2dial/recordings/{record['recording_url']}") as answer:
            audio = answer.read()
        with open(environ["RECORDING"], "wb") as file:
            file.write(audio)
        print("recording", len(audio), "bytes")


if __name__ == "__main__":
    main()
