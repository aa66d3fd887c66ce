"""Coverage-guided fuzzing of what reads bytes from outside: ``python -m tests.fuzz --seconds N [TARGET]``.

``targets.py`` says what may never happen, ``seeds.py`` where the search begins, ``__main__.py`` runs atheris.
A short run of each target is part of ``make test``, a long one is ``make fuzz``.
"""
