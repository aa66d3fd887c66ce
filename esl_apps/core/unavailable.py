"""The one exception for shared state that can't be used."""

from __future__ import annotations


class StoreUnavailable(Exception):
    """Redis is down, refuses, or holds something unreadable: cards, limits and calls can't be asked now.

    Everything in ``store`` raises it, and nothing else, for a Redis that fails; ``store/errors.py`` has its kinds. Deny
    to be safe: a flow refuses the call, HTTP answers 503.
    """

    @property
    def summary(self) -> str:
        """A few words for clients, without names of keys, users and addresses."""
        return "redis: can't be used now"
