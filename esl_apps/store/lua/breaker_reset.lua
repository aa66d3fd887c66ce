-- Reset a breaker.
-- KEYS: tripped, log.
-- ARGV: scope, reason (''), who did it.
-- Returns 1 if it was tripped, else 0.
-- include: breaker_log

if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
note('reset')
return 1
