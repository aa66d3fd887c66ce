"""Load for the programs under test: switches, callers and HTTP clients, and tools to time them."""
