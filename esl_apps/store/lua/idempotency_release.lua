-- Give back an idempotency key, if it still has this claim.
-- KEYS: the idempotency key.
-- ARGV: the claim.

if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
