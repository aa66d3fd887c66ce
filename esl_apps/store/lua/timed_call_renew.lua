-- Keep a timed call, if this claim still holds it.
-- KEYS: due, pending.
-- ARGV: number, claim, when the lease ends.
-- Returns 1, or 0 if another node has it.

if redis.call('HGET', KEYS[2], ARGV[1] .. ':claim') ~= ARGV[2] then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
return 1
