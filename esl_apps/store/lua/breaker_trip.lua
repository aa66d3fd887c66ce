-- Trip a breaker, unless it is tripped already.
-- KEYS: tripped, log.
-- ARGV: scope, reason, who did it, '1' to end its calls.
-- Returns 1, or 0 if it was tripped before, and the trip as JSON.
-- include: breaker_log

local trip = cjson.encode({at=now, why=ARGV[2], by=ARGV[3], end_calls=ARGV[4] == '1'})
if redis.call('HSETNX', KEYS[1], ARGV[1], trip) == 0 then return {0, redis.call('HGET', KEYS[1], ARGV[1])} end
note('tripped', trip)
return {1, trip}
