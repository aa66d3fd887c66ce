"""A function for each parser: it takes bytes, and an exception is a finding.

Each checks more than that nothing crashes: two ways of reading the same bytes must agree, and the result must keep its
type's promises.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec

from esl_apps.apps.autodial import CONFERENCE
from esl_apps.apps.click2dial import new_call
from esl_apps.apps.settings import Rules
from esl_apps.cli import kazoo_import
from esl_apps.config import parse
from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.core import dialstring
from esl_apps.core.cards import Account
from esl_apps.core.faults import Refused
from esl_apps.core.order import CONTACT_REF_LENGTH, IntegratorRules
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.esl import session as session_module
from esl_apps.esl import switch_cdr, wire
from esl_apps.esl.answers import ReplyError
from esl_apps.esl.session import Gone, OutboundSession
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.esl.wire import Event, Framer, FramingError
from esl_apps.http.autodial import read_order
from esl_apps.prompts import is_media
from esl_apps.store.calls import CallStore
from esl_apps.store.card_fields import NAME
from esl_apps.store.cards import CardStore
from esl_apps.store.errors import Unreadable
from esl_apps.store.essence import StoredEssence, own_version
from esl_apps.store.idempotency import IdempotencyKeys
from esl_apps.store.script import sha_of, text_of
from esl_apps.testing import PLAN
from tests.support.dial_strings import SETTINGS

# The event socket -------------------------------------------------------------------------------------


def esl(data: bytes) -> None:
    """Frames don't depend on how the network splits them, and a lookup finds exactly what was sent."""
    whole, fault = _frames([data])
    size = 1 + data[0] % 32 if data else 1
    pieces, same_fault = _frames([data[i : i + size] for i in range(0, len(data), size)])
    assert [_seen(frame) for frame in whole] == [_seen(frame) for frame in pieces]
    assert fault == same_fault
    for frame in whole:
        _check_frame(frame)


def _frames(chunks: list[bytes]) -> tuple[list[Event], bool]:
    """The frames read, and whether a fault ended the reading."""
    framer, found = Framer(), []
    try:
        for chunk in chunks:
            for frame in framer.feed(chunk):
                found.append(frame)
    except FramingError:
        return found, True
    return found, False


def _seen(frame: Event) -> tuple[bytes, bytes, bytes]:
    return frame.content_type, frame.block, frame.payload


def _check_frame(frame: Event) -> None:
    block = frame.block.partition(b"\n\n")[0]
    first: dict[bytes, bytes] = {}
    for line in block.split(b"\n"):
        name, colon, value = line.partition(b": ")
        if colon:
            first.setdefault(name, value)
    for name, value in first.items():
        assert frame.raw(name) == value
    assert frame.raw(b"no such header\0") is None
    if frame.name:
        assert frame.name == first[b"Event-Name"]
    assert len(frame.headers) <= len(first)
    assert frame.ok == (not frame.data.startswith("-ERR"))
    assert frame.int("Content-Length") >= 0
    repr(frame)


class _Stream:
    """A session's socket that gives its bytes in pieces, then ends."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.closed = False

    def recv(self, _deadline: float | None) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def wait_for(self, _least: int) -> None: ...

    def send(self, _data: bytes, _timeout: float) -> None: ...

    def close(self) -> None:
        self.closed = True


CONNECTED = (
    b"Event-Name: CHANNEL_DATA\nUnique-ID: eb43d895-1f07-4a4e-93fc-ba8febf183b8\n"
    b"Content-Type: command/reply\nReply-Text: %2BOK%0A\n\n"
    b"Content-Type: command/reply\nReply-Text: +OK will linger 5 seconds\n\n"
)


def session(data: bytes) -> None:
    """Whatever a switch sends after ``connect``, a flow gets an answer or one of three errors, and ends."""
    size = 1 + data[0] % 64 if data else 1
    sock = _Stream([CONNECTED, *(data[i : i + size] for i in range(1, len(data), size))])
    with mock.patch.object(session_module, "Stream", lambda stream: stream):
        call = OutboundSession(("fuzz", 0), sock)  # type: ignore[arg-type]
    heard: list[Event] = []
    call.register_handle("*", heard.append)
    call.connect()
    try:
        call.finish(call.execute("answer"), None)
        call.api("uuid_exists 1")
        call.multiset({"a": "b"})
        call.finish(call.execute("playback", "x"), None)
        call.wait(lambda: False, None)
    except (Gone, ReplyError):
        pass
    try:
        call.wait(lambda: call.hangup_complete is not None, None, past_hangup=True)
    except Gone:
        # At the end of the bytes, or at a fault, the session closes with its reason, and no greenlet is left waiting.
        assert sock.closed
        assert not call.connected
        assert call.close_reason
        assert not call._completions
    call.leave()


# The configuration ------------------------------------------------------------------------------------

ENVIRONMENT = dict.fromkeys(("PIN_KEY", "FS_PASSWORD", "ACME_TOKEN", "ADMIN_TOKEN", "ACME_ADMIN_TOKEN"), "a-secret")


def config(data: bytes) -> None:
    """A text is a configuration, or a ConfigError that names the place."""
    refusal = ""
    try:
        parse(data.decode("utf-8", "replace"), ENVIRONMENT, "esl_apps.yml")
    except ConfigError as error:
        refusal = str(error)
    assert refusal == "" or refusal.startswith("esl_apps.yml")


# The API's bodies -------------------------------------------------------------------------------------

CLIENT = IntegratorRules("acme", PLAN, campaigns={"spring": ["27115550001", "27115550002"]}, caller_ids=["27115550000"])
_NUMBER = re.compile(r"\+?[0-9]{1,32}")
_REF = re.compile(rf"[A-Za-z0-9.\-_~:]{{0,{CONTACT_REF_LENGTH}}}")
_ORIGINATE = re.compile(
    rb"bgapi originate \{\^\^![^{}'\"\\$ \n]+\}(user/\d+@127\.0\.0\.1|sofia/gateway/pstn/\d+) '&socket\(x\)'\n\n"
)


def body(data: bytes) -> None:
    """A body is refused, or is an order of numbers that makes one originate and nothing else."""
    try:
        fields = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if not isinstance(fields, dict):
        return
    try:
        order = CLIENT.read(fields)
    except Refused as refused:
        # The body of the answer can be encoded.
        msgspec.json.encode([(fault.field, fault.code, fault.message) for fault in refused.faults])
        return
    for number in (order.agent, order.callee, order.outbound):
        assert _NUMBER.fullmatch(number.dialled)
    assert _REF.fullmatch(order.contact_ref)
    rung = new_call(order, CLIENT, SETTINGS).aleg(_NODE, "socket(x)")
    for endpoint in rung.endpoints:
        command = wire.command("bgapi " + dialstring.originate(rung.variables, endpoint, rung.application))
        assert _ORIGINATE.fullmatch(command), command


# The operator's bodies ---------------------------------------------------------------------------------

_NODE: Any = SimpleNamespace(
    settings=SETTINGS,
    rules=Rules(),
    is_media=lambda name: is_media(name, None, "en", ["https://prompts.example/a.wav"]),
)
_ACCOUNT = Account(id="acme", caller_id="+27115550000")


_READING = {sha_of(text_of(name)) for name in ("cards_read", "card_dial", "cards_page", "card_delete")}
_CLAIMING = sha_of(text_of("idempotency_claim"))


class _Redis:
    """A Redis that accepts every write and gives the same answer to every read."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    def hget(self, _key: str, _field: str) -> bytes:
        return self._data

    def get(self, _key: str) -> bytes:
        return self._data

    def set(self, _key: str, _value: bytes, **_how: object) -> bytes:
        return self._data

    def hgetall(self, _key: str) -> dict[bytes, bytes]:
        return {b"account": self._data, b"user:u": self._data, self._data: self._data}

    def hset(self, _key: str, _field: str, _value: bytes) -> None: ...

    def hdel(self, _key: str, _field: str) -> int:
        return 1

    def execute_command(self, _evalsha: str, sha: str, *_keys: object) -> object:
        if sha == _CLAIMING:
            return self._data
        return [b"c1", self._data] if sha in _READING else 1


def _cards(redis: _Redis) -> CardStore:
    return CardStore(redis, "key", PLAN, {})


def operators_body(data: bytes) -> None:
    """An autodial is refused, or rings numbers; a card is refused, or is one that was checked."""
    try:
        fields = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if not isinstance(fields, dict):
        return
    try:
        order = read_order(_NODE, _ACCOUNT, fields)
    except Refused as refused:
        msgspec.json.encode(refused.faults)
    else:
        assert _NUMBER.fullmatch(order.a.dialled)
        assert order.b is not None or CONFERENCE.fullmatch(order.conference or "")
        assert 0 <= order.delay <= 3600
    try:
        card = _cards(_Redis()).create("acme", fields)
    except Refused as refused:
        msgspec.json.encode([(fault.field, fault.code, fault.message) for fault in refused.faults])
    else:
        assert card.user_id is None or NAME.fullmatch(card.user_id)
        assert card.cid is None or card.cid.isdigit()


# Documents in Redis and in files --------------------------------------------------------------------


def stored(data: bytes) -> None:
    """A document in Redis is what it should be or is reported as unreadable, nothing else."""
    cards = _cards(_Redis(data))
    for ask in (
        lambda: cards.by_pin("123456789"),
        lambda: cards.by_number("27820001234"),
        lambda: cards.last_number("a"),
        lambda: cards.account("imported"),
        lambda: cards.system_config("cccp"),
        lambda: cards.get("acme", "a"),
        lambda: cards.page("acme", 1),
        lambda: cards.delete("acme", "a"),
    ):
        with suppress(StoreUnavailable):
            ask()
    store = CallStore(_Redis(data))
    call = store.call("a")
    assert call is None or (isinstance(call["call_ref"], str) and isinstance(call["state"], str))
    with suppress(Unreadable):
        IdempotencyKeys(_Redis(data)).claim("acme", "key", b"", "ref")
    essence = own_version(data)
    if isinstance(essence, StoredEssence):
        assert re.fullmatch(r"[A-Za-z0-9.-]{1,64}", essence.call_ref)
        # As its adopter writes it: whatever else it had, it is read again.
        assert StoredEssence.decode(essence.encode()) == essence


_CONFIG = Config(pin_key="key-for-tests")


def kazoo(data: bytes) -> None:
    """A file of documents is imported, left or refused, document by document."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(data)
        file.flush()
        redis = _Redis(b'["a","acme"]')
        try:
            results = [str(one) for one in kazoo_import.import_files([file.name], _CONFIG, redis)]
        except StoreUnavailable:
            # This Redis never has the account.
            return
    assert all("\x1b" not in line and "\n" not in line for line in results)


def spool(data: bytes) -> None:
    """A file of mod_json_cdr is a leg, or is incomplete."""
    cdr = switch_cdr.parse("11111111-1111-4111-8111-111111111111.cdr.json", data)
    assert cdr is None or cdr.leg(SwitchClock()).uuid is not None


TARGETS: dict[str, Callable[[bytes], None]] = {
    "esl": esl,
    "session": session,
    "config": config,
    "body": body,
    "operators_body": operators_body,
    "stored": stored,
    "kazoo": kazoo,
    "spool": spool,
}
