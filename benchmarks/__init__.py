"""Measure what calls cost with this project and with its peers: ``python -m benchmarks [NAME …]``."""
