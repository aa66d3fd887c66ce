-- Give back seconds that were taken but not talked. Sums never fall below zero: a Redis that lost its data has none
-- of them.
-- KEYS: calls, sums.
-- ARGV: the call, if it doesn't count after all, or ''; then seconds, day and minute of each part.

local function less(field, by)
  local value = redis.call('HGET', KEYS[2], field)
  if value then redis.call('HSET', KEYS[2], field, string.format('%.3f', math.max(0, value - by))) end
end
-- Its score is when it was counted.
local at = ARGV[1] ~= '' and redis.call('ZSCORE', KEYS[1], ARGV[1])
if at then
  redis.call('ZREM', KEYS[1], ARGV[1])
  local counted = 'n' .. string.format('%d', math.floor(at / 86400))
  if tonumber(redis.call('HGET', KEYS[2], counted) or 0) > 0 then redis.call('HINCRBY', KEYS[2], counted, -1) end
end
for i = 2, #ARGV, 3 do
  less('d' .. ARGV[i + 1], ARGV[i])
  less('m' .. ARGV[i + 2], ARGV[i])
end
