-- Note a failed attempt.
-- KEYS: the state, the lease.
-- ARGV: as `now` has it; the status of the answer ('' if there was none); what went wrong; what says which URL answered
-- that it is gone for ever ('' if it didn't); seconds until the next attempt; this process.
-- Returns since when attempts fail, by Redis's clock; nothing if another process holds the lease.
-- include: now

local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[6] then return false end
redis.call('HSETNX', KEYS[1], 'since', now)
redis.call('HINCRBY', KEYS[1], 'failures', 1)
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'error', ARGV[3], 'next', now + ARGV[5])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'off', ARGV[4]) end
return redis.call('HGET', KEYS[1], 'since')
