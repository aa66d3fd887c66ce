"""The applications: each a plain function over a :class:`~esl_apps.core.call.Call` that reads top to bottom."""
