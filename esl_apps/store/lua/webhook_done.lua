-- Mark a webhook's entries as done with: delivered, or set aside. Only if the last one done with is the one expected:
-- another process may have delivered meanwhile, or an operator may have asked for a replay.
-- KEYS: the stream, the state, the stream's counter.
-- ARGV: as `now` has it; the id expected; the new id and its seq; how many are set aside; the status of the last answer;
-- milliseconds to keep an entry that was set aside; how many delivered ones to keep at most.
-- Returns whether they were marked.
-- include: now

if (redis.call('HGET', KEYS[2], 'done') or '0-0') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[2], 'done', ARGV[3], 'seq', ARGV[4])
if ARGV[5] == '0' then
  redis.call('HDEL', KEYS[2], 'failures', 'since', 'next', 'error')
  redis.call('HSET', KEYS[2], 'status', ARGV[6], 'delivered_at', now)
else
  redis.call('HINCRBY', KEYS[2], 'aside', ARGV[5])
  redis.call('HSET', KEYS[2], 'last_aside', ARGV[3])
end

-- Keep each entry that was set aside for its whole time, and a number of those that were delivered.
local last_aside = redis.call('HGET', KEYS[2], 'last_aside') or '0'
if tonumber(string.match(last_aside, '^(%d+)')) < now * 1000 - ARGV[7] then
  local waiting = (tonumber(redis.call('GET', KEYS[3])) or 0) - ARGV[4]
  redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', string.format('%.0f', math.max(0, waiting) + ARGV[8]))
end
return 1
