-- Count a call against one limit, and take the first seconds it will talk.
-- KEYS: calls, sums.
-- ARGV: time, call, calls per hour, calls per day, seconds per hour, seconds per day ('': no limit), seconds to
-- take, '1' to look without counting.
-- Returns the name of the limit that is used up; otherwise {seconds taken, seconds left, day, minute, what will be
-- used up first, 1 if this call was not counted here before}.
-- include: now
-- include: sums

local rest, why = left(ARGV[5], ARGV[6])
if rest < 1 then return why end
local new = false
if ARGV[3] ~= '' or ARGV[4] ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.3f', now - 3600))
  new = not redis.call('ZSCORE', KEYS[1], ARGV[2])
end
if new then
  if ARGV[3] ~= '' and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 'calls_per_hour' end
  if ARGV[4] ~= '' and readable(redis.call('HGET', sums, 'n' .. day), sums) >= tonumber(ARGV[4]) then
    return 'calls_per_day'
  end
end
local seconds = math.min(tonumber(ARGV[7]), rest)
if ARGV[8] ~= '1' then
  if new then
    redis.call('ZADD', KEYS[1], string.format('%.3f', now), ARGV[2])
    redis.call('EXPIRE', KEYS[1], 3601)
    redis.call('HINCRBY', sums, 'n' .. day, 1)
  end
  take(seconds, ARGV[5])
  keep()
end
local result = answer(seconds, rest - seconds, why)
result[6] = new and 1 or 0
return result
