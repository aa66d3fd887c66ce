-- Define `now` and `note`, which writes one line to the breakers' log. It names the trip, so that which reset belongs to
-- which trip doesn't depend on a clock. `why`: nil for the reason in ARGV.
-- KEYS[2]: the log. ARGV: scope, reason, who did it.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local function note(what, trip, why)
  local line = {at=now, scope=ARGV[1], what=what, why=why or ARGV[2], by=ARGV[3], trip=redis.sha1hex(trip)}
  redis.call('LPUSH', KEYS[2], cjson.encode(line))
  redis.call('LTRIM', KEYS[2], 0, 999)
end
