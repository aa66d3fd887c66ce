"""The chaos run: load through all applications while nodes, Redis and connections die, then a comparison of accounts.

``python -m tests.chaos --minutes 10 --seed 1``; ``make chaos MINUTES=10 SEED=1``. The legs that the switch saw are
one account (:mod:`witness`), the records popped from Redis the other; :mod:`accounts` compares them. No verdict depends
on how long a call takes: a slow machine makes the run longer, but doesn't change the result.
"""
