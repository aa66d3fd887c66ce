"""Limits that are compiled into the wheel ``pjsua2-python``. A bank that exceeds them ends by an assertion."""

RATE = 8000
MAX_CALLS = 4
MAX_ACCOUNTS = 8
