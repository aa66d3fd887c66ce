"""Calling cards, callback, DISA and click-to-dial for FreeSWITCH, over its event socket."""

__version__ = "0.1.0"
