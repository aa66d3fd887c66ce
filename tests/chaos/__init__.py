"""The chaos run: load through all applications while nodes, Redis and connections die, and the accounts afterwards.

``python -m tests.chaos --minutes 10 --seed 1``; ``make chaos MINUTES=10 SEED=1``. What the switch saw is one account
(:mod:`witness`), the records popped from Redis the other; :mod:`accounts` compares them. Nothing here waits for a
call to come out in a certain time: a slow machine makes the run longer, not its verdict different.
"""
