-- Count a concurrent call, unless the holder has as many as they may.
-- KEYS: the holder's calls.
-- ARGV: time, call, lease in seconds, limit.
-- Returns 1 if the call counts (once, however often this is asked), else 0.
-- include: now

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then
  return 0
end
-- include: lease
