"""What the applications know and decide. Nothing in here opens a socket, and nothing imports gevent,
redis or greenswitch (``tests/unit/test_layers.py`` holds that), so all of it runs in a test with no wait."""
