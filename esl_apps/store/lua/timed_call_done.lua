-- End a timed call, if this claim still holds it.
-- KEYS: due, pending, the number's past, the owner's calls.
-- ARGV: number, claim, now, its owner ('').
-- Returns 1, or 0 if another node has it.

if redis.call('HGET', KEYS[2], ARGV[1] .. ':claim') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[4], ARGV[1])
local n = ARGV[1]
redis.call('HDEL', KEYS[2], n, n .. ':attempt', n .. ':claim', n .. ':owner', n .. ':dropped')
if ARGV[4] == '' then
  redis.call('HSET', KEYS[3], 'ended', ARGV[3])
  redis.call('EXPIRE', KEYS[3], redis.call('HGET', KEYS[3], 'keep') or 86400)
end
return 1
