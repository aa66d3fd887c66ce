"""The configuration of webhooks."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from esl_apps.config.fields import Name, Section, described

#: ``core.webhooks.key_of`` reads it; the length is a rule.
Secret = Annotated[
    str, described("whsec_ and the base64 of 24 to 64 bytes", pattern=r"^whsec_[A-Za-z0-9+/]{32,88}={0,2}\Z")
]


class Webhook(Section, frozen=True, kw_only=True):
    name: Name
    """Unique among the webhooks of all integrators. A renamed webhook begins with nothing to deliver."""
    url: str
    """Where to post: https, without a user, a password or #."""
    secrets: Annotated[list[Secret], Meta(min_length=1)]
    """Each signs every message: two during a rotation, otherwise one; `whsec_` and the base64 of 24 to 64 random
    bytes."""
    events: list[Literal["cdr", "call", "inbound", "session"]] = field(
        default_factory=lambda: ["cdr", "call", "inbound", "session"]
    )
    """Notifications to post, by type: cdr, call (an agent answered an inbound call; inbound is the same), session."""
    allow_http: bool = False
    """True: http is allowed, too: everyone on the way can read the notifications."""
    allow_private: bool = False
    """True: private, loopback and link-local addresses are allowed, too."""
