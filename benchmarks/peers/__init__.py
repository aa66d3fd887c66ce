"""The programs under test. Each takes a port as its first argument and performs the same call there."""
