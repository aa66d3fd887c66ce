"""The event-socket layer: against a scripted peer, against recorded traffic, and against the sandbox.

``peer.py`` is the other end of the wire. ``test_hazards.py`` shows each hazard of DESIGN.md twice: what the
unmodified greenswitch (or the naive way) makes of it, and what this package does.
"""
