-- Trip a breaker, unless it is tripped already. One that doesn't end its calls is tripped again by one that does.
-- KEYS: tripped, log.
-- ARGV: scope, reason, who did it, '1' to end its calls.
-- Returns 1; 2 if it was tripped, and ends its calls only now; 0 if nothing has changed. Then the trip as JSON.
-- include: breaker_log

local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
  local readable, known = pcall(cjson.decode, stored)
  local ends_calls = readable and type(known) == 'table' and known.end_calls == true
  if ARGV[4] ~= '1' or ends_calls then return {0, stored} end
  -- A node that learns of neither this trip nor its reset would write the stored one again.
  note('reset', stored, 'to trip again and end its calls')
end
local trip = cjson.encode({at=now, why=ARGV[2], by=ARGV[3], end_calls=ARGV[4] == '1'})
redis.call('HSET', KEYS[1], ARGV[1], trip)
note('tripped', trip)
return {stored and 2 or 1, trip}
