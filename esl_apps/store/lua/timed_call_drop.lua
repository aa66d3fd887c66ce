-- Drop a timed call that no node has taken: it is due at once, to be ended.
-- KEYS: due, pending, (unused), the owner's calls.
-- ARGV: number, its owner ('').
-- Returns 1; 0 if there is none of this owner; -1 if a node is placing it.

local fields = redis.call('HMGET', KEYS[2], ARGV[1], ARGV[1] .. ':owner', ARGV[1] .. ':claim', ARGV[1] .. ':dropped')
if not fields[1] or (fields[2] or '') ~= ARGV[2] or fields[4] then return 0 end
if fields[3] then return -1 end
redis.call('HSET', KEYS[2], ARGV[1] .. ':dropped', '1')
redis.call('ZADD', KEYS[1], 0, ARGV[1])
redis.call('SREM', KEYS[4], ARGV[1])
return 1
