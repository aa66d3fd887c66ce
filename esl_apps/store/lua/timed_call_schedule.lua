-- Schedule a call, unless the number has one, is cooling down, or had as many today as it may.
-- KEYS: due, pending, the number's past.
-- ARGV: number, document, when due, cool-down in seconds, calls per day, now, day.
-- Returns the reason for a refusal, or nil.

if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return 'pending' end
local past = redis.call('HMGET', KEYS[3], 'ended', 'day', 'count')
if past[1] and tonumber(ARGV[6]) < past[1] + ARGV[4] then return 'cool_down' end
local count = past[2] == ARGV[7] and tonumber(past[3]) or 0
if count >= tonumber(ARGV[5]) then return 'per_day' end
local keep = math.max(86400, math.ceil(ARGV[4]))
redis.call('HSET', KEYS[3], 'day', ARGV[7], 'count', count + 1, 'keep', keep)
redis.call('EXPIRE', KEYS[3], keep)
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
return false
