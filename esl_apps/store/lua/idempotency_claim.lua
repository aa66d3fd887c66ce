-- Take an idempotency key, unless a request has it. (SET with NX and GET needs Redis 7.)
-- KEYS: the idempotency key.
-- ARGV: the claim, seconds to keep it.
-- Returns the claim that holds it, or nil if it is ours now.

local held = redis.call('GET', KEYS[1])
if held then return held end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return false
