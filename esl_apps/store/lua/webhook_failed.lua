-- Note a failed attempt. KEYS: the state.
-- ARGV: as `now` has it; the status of the answer ('' if there was none), what went wrong, the URL if it said that it is gone for ever
-- ('' otherwise).
-- Returns since when attempts fail, by Redis's clock.
-- include: now

redis.call('HSETNX', KEYS[1], 'since', now)
redis.call('HINCRBY', KEYS[1], 'failures', 1)
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'error', ARGV[3], 'failed_at', now)
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'off', ARGV[4]) end
return redis.call('HGET', KEYS[1], 'since')
