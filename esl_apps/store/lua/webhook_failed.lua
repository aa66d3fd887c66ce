-- Note a failed attempt.
-- KEYS: the state.
-- ARGV: as `now` has it; the status of the answer ('' if there was none); what went wrong; what says which URL answered
-- that it is gone for ever ('' if it didn't); seconds until the next attempt.
-- Returns since when attempts fail, by Redis's clock.
-- include: now

redis.call('HSETNX', KEYS[1], 'since', now)
redis.call('HINCRBY', KEYS[1], 'failures', 1)
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'error', ARGV[3], 'next', now + ARGV[5])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'off', ARGV[4]) end
return redis.call('HGET', KEYS[1], 'since')
