"""The programs under test: each plays the same call, given its port as the one argument."""
