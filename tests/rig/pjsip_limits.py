"""What is compiled into the wheel ``pjsua2-python``: a bank that passes these ends by an assertion."""

RATE = 8000
MAX_CALLS = 4
MAX_ACCOUNTS = 8
