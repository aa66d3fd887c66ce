"""The one exception for shared state that can't be reached."""

from __future__ import annotations


class StoreUnavailable(Exception):
    """Redis is down, refuses, or holds something unreadable: cards, limits and calls can't be asked now.

    Everything in ``store`` raises it, and nothing else, for a Redis that fails. Deny to be safe: a flow refuses
    the call, HTTP answers 503.
    """
