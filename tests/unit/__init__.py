"""Tests that need no switch: one module for each module of the repository."""
