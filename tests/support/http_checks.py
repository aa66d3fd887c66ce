"""Paths, a request that is accepted, and checks of answers, for tests of the HTTP ports."""

from __future__ import annotations

import struct
import wave
from pathlib import Path
from typing import Any

from esl_apps.apps.legs import recording_path
from esl_apps.core.reference import new_ref
from tests.rig.sandbox import SandboxRig
from tests.support import schemas
from tests.support.node import Answer, Node, request

#: A reference that no call has; one and the same in every process that collects these tests.
NO_CALL = "01a20000-0000-7000-8000-000000000000"
CALLS = "/click2dial/calls"
RECORDINGS = "/click2dial/recordings"
CALLEE = "0820001234"
ORDER = {"agent": "1000", "callee": CALLEE, "outbound_id": "27115550000"}
ERROR = {
    "type": "object",
    "required": ["errors"],
    "additionalProperties": False,
    "properties": {
        "errors": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["field", "code", "message"],
                "additionalProperties": False,
                "properties": {name: {"type": "string"} for name in ("field", "code", "message")},
            },
        }
    },
}


def refused(answer: Answer, status: int) -> list[tuple[str, str]]:
    """(field, code) of an error's body, whose form is checked."""
    assert answer.status == status, (answer.status, answer.body)
    assert answer.headers["content-type"].startswith("application/json")
    schemas.validate(answer.json, ERROR)
    return [(error["field"], error["code"]) for error in answer.json["errors"]]


def metric(node: Node, name: str) -> float:
    text = request(node.admin, "GET", "/metrics", token=None).body.decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def write_recording(sandbox: SandboxRig, integrator: str, frames: int = 800) -> tuple[str, bytes]:
    name = f"{new_ref()}.wav"
    path = Path(recording_path(str(sandbox.recordings), integrator, name))
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(2)
        wav.setsampwidth(2)
        wav.setframerate(8000)
        wav.writeframes(b"".join(struct.pack("<hh", number % 9999, 7) for number in range(frames)))
    return name, path.read_bytes()


def check_answer(document: dict[str, Any], path: str, method: str, answer: Answer) -> None:
    """An answer is one that the description has for it."""
    described = document["paths"][path][method]["responses"]
    assert str(answer.status) in described, (answer.status, answer.body)
    schema = described[str(answer.status)]["content"]["application/json"]["schema"]
    schemas.described(document, schema).validate(answer.json)
