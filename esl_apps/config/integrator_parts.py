"""Sections within an integrator's: its Redis, its patterns, and who may use the old form of a request."""

from __future__ import annotations

from esl_apps.config.fields import Section


class IntegratorRedis(Section, frozen=True):
    url: str
    """Its notifications; without this, the top-level Redis."""


class LegacyGet(Section, frozen=True):
    allow: list[str]
    """Addresses (CIDR) that may call GET /call.php without a token."""


class Patterns(Section, frozen=True):
    """The defaults are those of Teleforge's API in South Africa; replace them elsewhere."""

    agent: str | None = None
    """Regex on agent; null: 3 or 4 digits, or as callee."""
    callee: str | None = None
    """Regex on callee; null: 10 digits from 0, 11 from 27, 13 to 16 from 00, or 3 or 4 digits."""
    outbound_id: str | None = None
    """Regex on outbound_id; null: 10 digits from 0, 11 from 27, or tvc_NAME of a campaign."""
    contact_ref: str | None = None
    """Regex on contact_ref; null: letters, digits and . - _ ~ :"""
