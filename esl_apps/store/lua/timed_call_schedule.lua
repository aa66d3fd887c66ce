-- Schedule a call, unless the number has one, is cooling down, or had as many today as it may, or its owner's calls
-- that wait are as many as they may be.
-- KEYS: due, pending, the number's past, the owner's calls.
-- ARGV: number, document, when due, cool-down in seconds, calls per day, now, day, unused calls per day ('': each call
-- counts as used) and the cool-down after these, owner (''), how many calls the owner may have, when the request is
-- given up ('': never).
-- Returns the reason for a refusal, behind 'late' with this clock's time, or nil.

-- include: readable

if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return 'pending' end
local time = redis.call('TIME')
if ARGV[12] ~= '' and time[1] + time[2] / 1000000 > tonumber(ARGV[12]) then
  return string.format('late %d.%06d', time[1], time[2])
end
if ARGV[10] ~= '' and redis.call('SCARD', KEYS[4]) >= tonumber(ARGV[11]) then return 'too_many' end
local past = redis.call('HMGET', KEYS[3], 'ended', 'day', 'count', 'used')
local now, ended = tonumber(ARGV[6]), past[1] and readable(past[1], KEYS[3])
if ended and now < ended + ARGV[4] then return 'cool_down' end
local today = past[2] == ARGV[7]
local count, used = today and readable(past[3], KEYS[3]) or 0, today and readable(past[4], KEYS[3]) or 0
if (ARGV[8] == '' and count or used) >= tonumber(ARGV[5]) then return 'per_day' end
if ARGV[8] ~= '' and count - used >= tonumber(ARGV[8]) and ended and now < ended + ARGV[9] then return 'cool_down' end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
if ARGV[10] ~= '' then
  -- It has a name of its own, so it has no past.
  redis.call('HSET', KEYS[2], ARGV[1] .. ':owner', ARGV[10])
  redis.call('SADD', KEYS[4], ARGV[1])
else
  local keep = math.max(86400, math.ceil(ARGV[4]))
  redis.call('HSET', KEYS[3], 'day', ARGV[7], 'count', count + 1, 'used', used, 'keep', keep)
  redis.call('EXPIRE', KEYS[3], keep)
end
return false
