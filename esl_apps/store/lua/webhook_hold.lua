-- Take or renew the right to deliver a webhook, drop what is too old, and see how much there is to deliver.
-- KEYS: the lease, the state, the stream's counter, the stream.
-- ARGV: as `now` has it; this process, milliseconds until the lease ends, the last run of this node, which is dead;
-- seconds to keep what a webhook has that no node delivers; milliseconds to keep entries that are done with.
-- Returns nothing if another process has it; otherwise how many entries wait, the failed attempts in a row, and when the
-- oldest entry that waits was pushed (milliseconds since 1970; '' if none waits).
-- include: now

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[2] and holder ~= ARGV[4] then return {} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
for i = 2, 4 do
  -- An hour late, so that not every renewal is a write. A key that something else has just made has no end yet (-1).
  if redis.call('PTTL', KEYS[i]) < (ARGV[5] - 3600) * 1000 then redis.call('EXPIRE', KEYS[i], ARGV[5]) end
end
local state = redis.call('HMGET', KEYS[2], 'seq', 'failures', 'done')
-- Here, and not when something is delivered: an idle webhook would keep callers' numbers for ever.
local ms, n = string.match(state[3] or '', '^(%d+)-(%d+)$')
if ms then
  local oldest = math.max(0, now * 1000 - ARGV[6])
  -- Nothing that waits is dropped. Behind the last id of a millisecond, which a replay has made, comes the next one.
  local waiting = #n < 16 and string.format('%s-%.0f', ms, n + 1) or string.format('%.0f-0', ms + 1)
  redis.call('XTRIM', KEYS[4], 'MINID', tonumber(ms) < oldest and waiting or string.format('%.0f', oldest))
end
local depth = (tonumber(redis.call('GET', KEYS[3])) or 0) - (tonumber(state[1]) or 0)
local oldest = depth > 0 and redis.call('XRANGE', KEYS[4], '(' .. (state[3] or '0-0'), '+', 'COUNT', 1)[1]
return {depth, tonumber(state[2]) or 0, oldest and string.match(oldest[1], '^%d+') or ''}
