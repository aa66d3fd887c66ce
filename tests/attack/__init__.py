"""The product attacked from every side that a stranger has; ``docs/security.rst`` has each test beside its promise.

``python -m tests.attack`` (``make attack``) is the long form: more INVITEs, a million frames, 100,000 requests.
"""
