"""Coverage-guided fuzzing of all that reads bytes from outside: ``python -m tests.fuzz --seconds N [TARGET]``.

``targets.py`` defines what must never happen, ``seeds.py`` has the first inputs, ``__main__.py`` runs atheris.
A short run of each target is part of ``make test``, a long one is ``make fuzz``.
"""
