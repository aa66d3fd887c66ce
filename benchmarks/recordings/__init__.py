"""Calls and frames of a real FreeSWITCH, for the load generators. ``python -m benchmarks.recordings`` records calls."""
