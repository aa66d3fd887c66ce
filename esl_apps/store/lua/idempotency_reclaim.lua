-- Replace an idempotency key's claim, if it is still the one that was read.
-- KEYS: the idempotency key.
-- ARGV: the claim it must have, the new claim, seconds to keep it.
-- Returns 1, or 0 if another request was faster.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
