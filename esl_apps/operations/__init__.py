"""The views and actions of operators, from Redis and the configuration alone. So the command line works without a node,
and can't differ from HTTP, whose ``http/operator.py`` calls the same functions."""
