"""Idempotency keys: a request that a client repeats is done once."""

from __future__ import annotations

import hashlib
import logging

import msgspec

from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.versions import IDEMPOTENCY_CLAIM
from esl_apps.store import documents, keys
from esl_apps.store.errors import NoAnswer, Unsent
from esl_apps.store.redis_client import Client
from esl_apps.store.script import Script

log = logging.getLogger(__name__)

#: Seconds for which a key holds.
KEEP = 86400


#: How an action ended: it was done, or the switch or the call's node doesn't say. One that wasn't done gives its key
#: back.
DONE, UNKNOWN = "done", "unknown"


class Claim(msgspec.Struct, omit_defaults=True):
    """The request that took an idempotency key: its body as a hash, its call, and the process it reached."""

    body: str
    call_ref: str
    boot: str
    outcome: str = ""
    """How an action has ended: DONE or UNKNOWN. Empty while it runs, and for a call."""
    transfer_ref: str | None = None
    """The call that the answer to an action named, once it is done; empty: none. None: a node of an earlier version has
    noted its end."""


class IdempotencyKeys:
    def __init__(self, client: Client, boot: str = "") -> None:
        """``boot``: this process's name in ``membership``."""
        self._client = client
        self._boot = boot
        self._take = Script(client, "idempotency_claim")
        self._reclaim = Script(client, "idempotency_reclaim")
        self._release = Script(client, "idempotency_release")

    def claim(self, integrator: str, key: str, body: bytes, call_ref: str) -> Claim | None:
        """Take a key for a call. Return None if it is now ours, otherwise the claim that holds it.

        :raises StoreUnavailable: Redis is down: dialling might place a second call.
        """
        claim = self._own(body, call_ref)
        try:
            raw = self._take([_name(integrator, key)], [documents.encode(IDEMPOTENCY_CLAIM, claim), KEEP])
        except Unsent:
            raise
        except NoAnswer:
            # Redis may have taken the claim of this request, which is refused now.
            self.release(integrator, key, body, call_ref)
            raise
        return None if raw is None else documents.decode(IDEMPOTENCY_CLAIM, raw, Claim)

    def reclaim(self, integrator: str, key: str, claim: Claim, call_ref: str) -> bool:
        """Take a key whose request placed no call and is over. False: another request was faster.

        :raises StoreUnavailable: Redis is down.
        """
        held = self._client.get(_name(integrator, key))
        if held is None or documents.decode(IDEMPOTENCY_CLAIM, held, Claim) != claim:
            return False
        fresh = documents.encode(IDEMPOTENCY_CLAIM, Claim(claim.body, call_ref, self._boot))
        return bool(self._reclaim([_name(integrator, key)], [held, fresh, KEEP]))

    def note(self, integrator: str, key: str, body: bytes, call_ref: str, outcome: str, transfer_ref: str = "") -> None:
        """Note how the action of a key has ended. If Redis is down, it counts as one whose process has died."""
        claim = self._own(body, call_ref)
        noted = msgspec.structs.replace(claim, outcome=outcome, transfer_ref=transfer_ref)
        self._update(self._reclaim, integrator, key, claim, documents.encode(IDEMPOTENCY_CLAIM, noted), KEEP)

    def age(self, integrator: str, key: str) -> float:
        """Return for how many seconds a key has been claimed. :raises StoreUnavailable: Redis is down."""
        (left,) = self._client.send_all([("PTTL", _name(integrator, key))])
        return KEEP - float(left) / 1000

    def holds(self, integrator: str, key: str, call_ref: str) -> bool:
        """Whether a key is still this call's: other processes take those of a dead one.

        :raises StoreUnavailable: Redis is down.
        """
        raw = self._client.get(_name(integrator, key))
        return raw is not None and documents.decode(IDEMPOTENCY_CLAIM, raw, Claim).call_ref == call_ref

    def release(self, integrator: str, key: str, body: bytes, call_ref: str) -> None:
        """Give back the key of a request that was refused, unless another process has taken it over. If Redis is down,
        the key expires by itself."""
        self._update(self._release, integrator, key, self._own(body, call_ref))

    def _own(self, body: bytes, call_ref: str) -> Claim:
        return Claim(_digest(body), call_ref, self._boot)

    def _update(self, script: Script, integrator: str, key: str, claim: Claim, *more: bytes | int) -> None:
        try:
            script([_name(integrator, key)], [documents.encode(IDEMPOTENCY_CLAIM, claim), *more])
        except StoreUnavailable as error:
            log.warning("idempotency_key_not_updated", extra={"reason": str(error)})


def same_body(claim: Claim, body: bytes) -> bool:
    return claim.body == _digest(body)


def _name(integrator: str, key: str) -> str:
    # The key is a client's text: hashed, so that it can't name another key of ours.
    return keys.idempotency(integrator, _digest(key.encode()))


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
