-- Deliver a webhook's entries from a time on again, and switch it on if it is off.
-- KEYS: the stream, the state, the stream's counter.
-- ARGV: milliseconds since 1970 (Redis's clock).
-- Returns how many entries wait now.

local last = tonumber(redis.call('GET', KEYS[3])) or 0
redis.call('HDEL', KEYS[2], 'off', 'failures', 'since', 'next', 'error')
local first = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', 1)[1]
local seq = tonumber(redis.call('HGET', KEYS[2], 'seq')) or 0
if first then
  local fields = {}
  for i = 1, #first[2], 2 do fields[first[2][i]] = first[2][i + 1] end
  if tonumber(fields.seq) <= seq then
    seq = tonumber(fields.seq) - 1
    -- The id before it. A counter is 64 bits.
    local ms, n = string.match(first[1], '^(%d+)-(%d+)$')
    local before = n == '0' and string.format('%.0f-18446744073709551615', tonumber(ms) - 1)
      or string.format('%s-%.0f', ms, tonumber(n) - 1)
    redis.call('HSET', KEYS[2], 'done', before, 'seq', seq)
  end
end
return last - seq
