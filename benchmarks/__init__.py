"""What this project costs, measured beside its peers: ``python -m benchmarks [name …]``."""
