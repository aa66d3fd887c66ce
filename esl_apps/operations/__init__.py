"""The views and actions of operators. HTTP (``/v1``) and the command line call the same functions, so they can't
differ.

Each takes a Redis client, so that the command line works without a node.
"""
