"""The applications' knowledge and decisions, without I/O.

Nothing here opens a socket or imports gevent, redis or greenswitch (``tests/unit/test_layers.py`` checks that), so a
test runs all of it without waiting.
"""
