"""Attacks from every side that a stranger can reach.

``docs/explanation/security.rst`` lists each test with its promise.

``python -m tests.attack`` (``make attack``) is the long form: a million frames, 100,000 requests.
"""
