-- Take or renew the right to deliver a webhook, and see how much there is to deliver.
-- KEYS: the lease, the state, the stream's counter, the stream.
-- ARGV: this process, milliseconds until the lease ends, the last run of this node, which is dead; seconds to keep what a
-- webhook has that no node delivers.
-- Returns nothing if another process has it; otherwise how many entries wait, the failed attempts in a row, and when the
-- oldest entry that waits was pushed (milliseconds since 1970; '' if none waits).

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then return {} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
for i = 2, 4 do
  -- An hour late, so that not every renewal is a write. A key that something else has just made has no end yet (-1).
  if redis.call('PTTL', KEYS[i]) < (ARGV[4] - 3600) * 1000 then redis.call('EXPIRE', KEYS[i], ARGV[4]) end
end
local state = redis.call('HMGET', KEYS[2], 'seq', 'failures', 'done')
local depth = (tonumber(redis.call('GET', KEYS[3])) or 0) - (tonumber(state[1]) or 0)
local oldest = depth > 0 and redis.call('XRANGE', KEYS[4], '(' .. (state[3] or '0-0'), '+', 'COUNT', 1)[1]
return {depth, tonumber(state[2]) or 0, oldest and string.match(oldest[1], '^%d+') or ''}
