-- Define `now` and `note`, which writes one line to the breakers' log. The time is Redis's own: a reset comes
-- after its trip even if a node's clock is wrong.
-- KEYS[2]: the log. ARGV: scope, reason, who did it.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local function note(what)
  redis.call('LPUSH', KEYS[2], cjson.encode({at=now, scope=ARGV[1], what=what, why=ARGV[2], by=ARGV[3]}))
  redis.call('LTRIM', KEYS[2], 0, 999)
end
