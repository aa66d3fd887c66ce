-- Reset a breaker.
-- KEYS: tripped, log.
-- ARGV: scope, reason (''), who did it.
-- Returns 1 if it was tripped, else 0.
-- include: breaker_log

local trip = redis.call('HGET', KEYS[1], ARGV[1])
if not trip then return 0 end
-- First the line: a reset that isn't logged would be undone by the nodes.
note('reset', trip)
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
